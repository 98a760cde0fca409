"""The program's arguments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from patience import TIMEOUT_S
from planaria.supervisor.__main__ import main, parse
from planaria.supervisor.broker_tree import broker_tree, preloaded_modules
from planaria.supervisor.child_spec import with_endpoint
from planaria.supervisor.config import load, sent
from planaria.transport.addresses import Address
from planaria.transport.protocol.control import ChildSpec
from sent_text import sent_text


def test_arguments() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    arguments = parse(["--config-fd", str(sent(load({"data": "x"}))), "--status-fd", str(writer)])
    assert arguments.config.data == "x"
    assert (arguments.status_fd, arguments.lifeline_fd) == (writer, None)
    # A child that held it would keep the reader waiting for the end of the file.
    assert not os.get_inheritable(writer)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("argv", [["--bogus", "1"], ["--status-fd"], ["--status-fd", "x"]])
def test_wrong_arguments(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.startswith("planaria.supervisor: ")


def test_a_wrong_configuration_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config-fd", str(sent_text('{"dta": "x"}'))]) == 1
    assert capsys.readouterr().err == "planaria: flags: unknown key 'dta'; the nearest known one is 'data'\n"


def test_the_brokers_tree_names_the_actors_of_this_package() -> None:
    children = broker_tree("tcp://127.0.0.1:*", {}).children
    assert [getattr(child, "address", None) or getattr(child, "name", "") for child in children] == [
        "controller",
        "partitions",
        "replicas",
        "gateway/0",
        "coordinators",
        "transactions",
        "schedulers",
        "subscribers",
        "deployments",
        "mirrors",
    ]
    assert "planaria.actors.partition.process" in preloaded_modules("broker")
    # Last: it freezes the objects loaded by then.
    assert preloaded_modules("broker")[-1] == "planaria.supervisor.preload"


@pytest.mark.processes
def test_what_the_fork_server_loads_exists_and_starts_no_thread() -> None:
    # A ZeroMQ context would show as threads of its own; neither survives a fork.
    program = (
        "import gc, importlib, os, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(len(os.listdir('/proc/self/task')), gc.get_freeze_count() > 10_000)"
    )
    command = [sys.executable, "-c", program, *preloaded_modules("broker")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    assert result.stdout.split() == ["1", "True"]


def test_only_a_port_that_was_left_open_is_replaced() -> None:
    fixed = ChildSpec(
        address=Address.parse("gateway/0"),
        start="m:f",
        arguments={"endpoint": "tcp://127.0.0.1:5570", "n": 1},
    )
    assert with_endpoint(fixed, "tcp://127.0.0.1:1") is fixed
    open_port = ChildSpec(
        address=Address.parse("gateway/0"), start="m:f", arguments={"endpoint": "tcp://127.0.0.1:*", "n": 1}
    )
    assert with_endpoint(open_port, "tcp://127.0.0.1:1").arguments == {
        "endpoint": "tcp://127.0.0.1:1",
        "n": 1,
    }
    assert with_endpoint(open_port, None) is open_port


def test_an_unexpected_error_ends_the_process(tmp_path: Path) -> None:
    """The end of the interpreter waits for multiprocessing's children, and these wait for the end of the supervisor."""
    program = (
        "import multiprocessing, os, time\n"
        "from planaria.supervisor import __main__ as supervisor\n"
        "def outlives(parent):\n"
        "    while os.getppid() == parent: time.sleep(0.05)\n"
        "def fails(*_):\n"
        "    multiprocessing.get_context('fork').Process(target=outlives, args=(os.getpid(),)).start()\n"
        "    raise OSError('no such luck')\n"
        "supervisor.serve = fails\n"
        "supervisor.leave(supervisor.run(['--role', 'broker']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        timeout=TIMEOUT_S,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "OSError: no such luck" in done.stderr
