"""Rule: transport imports neither actors nor supervisor; actors and supervisor never import each other; the package of
an actor imports its own modules, `log`, `journal`, `metadata` and transport; inside the package all imports are
relative. So the process that must not die never loads broker code, and each actor can be read alone."""

import subprocess
import sys

import pytest

from source_tree import FOLDERS, PACKAGE, Source, package_sources

# Folder -> folders it must not import.
FORBIDDEN = {
    "transport": {"actors", "supervisor"},
    "actors": {"supervisor"},
    "supervisor": {"actors"},
}
# The packages of `actors` that an actor's package may import beside its own. `log` imports none, the others import `log`.
SHARED_BY_ACTORS = {"log": set[str](), "journal": {"log"}, "metadata": {"log"}}

# Packages for people's output must not be loaded by the supervisor's own process.
FOR_PEOPLE = {"typer", "rich", "click"}
FOR_TERMINALS = (
    "__main__.py",
    "supervisor/cli/",
    "supervisor/demo/",
    "supervisor/chaos/",
    "supervisor/bench/",
)


def faults(source: Source) -> list[str]:
    return [
        *absolute_imports(source),
        *wrong_directions(source),
        *sideways_imports(source),
        *root_imports(source),
        *people_imports(source),
    ]


def absolute_imports(source: Source) -> list[str]:
    own = {PACKAGE, *FOLDERS}
    return [
        f"{source.path}:{item.line}: write it relative: {item.module}"
        for item in source.imports
        if not item.is_relative and item.top in own
    ]


def wrong_directions(source: Source) -> list[str]:
    forbidden = FORBIDDEN.get(source.folder, set())
    return [
        f"{source.path}:{item.line}: {source.folder} imports {item.folder}"
        for item in source.imports
        if item.folder in forbidden
    ]


def sideways_imports(source: Source) -> list[str]:
    if source.folder != "actors" or source.path.count("/") < 2:
        return []
    own = source.path.split("/")[1]
    allowed = {own, *SHARED_BY_ACTORS.get(own, SHARED_BY_ACTORS)}
    packages = [(item.line, item.module.split(".")) for item in source.imports if item.folder == "actors"]
    return [
        f"{source.path}:{line}: actors/{own} imports actors/{parts[2]}"
        for line, parts in packages
        if len(parts) > 2 and parts[2] not in allowed
    ]


def root_imports(source: Source) -> list[str]:
    """The root's names are for users: a folder that imports one from there creates a circle."""
    if source.folder not in FOLDERS:
        return []
    return [
        f"{source.path}:{item.line}: takes {item.name} from the root"
        for item in source.imports
        if item.module == PACKAGE and item.folder is None and item.name != "__version__"
    ]


def people_imports(source: Source) -> list[str]:
    if source.path.startswith(FOR_TERMINALS):
        return []
    return [
        f"{source.path}:{item.line}: only the command line may import {item.module}"
        for item in source.imports
        if item.top in FOR_PEOPLE or item.module.startswith(f"{PACKAGE}.supervisor.cli")
    ]


def test_imports_go_the_right_way() -> None:
    found = [fault for source in package_sources() for fault in faults(source)]
    assert not found, "\n".join(found)


@pytest.mark.processes
@pytest.mark.parametrize("module", ["planaria", "planaria.supervisor", "planaria.transport.client.client"])
def test_importing_it_loads_no_actor_and_nothing_for_people(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert [name for name in loaded if name.startswith("planaria.actors") or name in FOR_PEOPLE] == []


@pytest.mark.processes
@pytest.mark.parametrize("arguments", [["--help"], ["topic", "--help"]])
def test_help_loads_no_client_and_that_of_a_command_no_other_command(arguments: list[str]) -> None:
    loaded = loaded_by(f"from planaria.supervisor.cli.app import run; run({arguments})")
    assert {"zmq", "planaria.transport.client.client"} & loaded == set()
    assert ("planaria.supervisor.cli.dlq" in loaded) == (arguments == ["--help"])


def loaded_by(program: str) -> set[str]:
    """Return the modules that a program of one line loads."""
    program = f"import sys; {program}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("transport/a.py", "from ..actors.log import Log", "transport imports actors"),
        ("transport/a.py", "from .. import supervisor", "transport imports supervisor"),
        ("transport/client/a.py", "from ...actors import log", "transport imports actors"),
        (
            "transport/client/a.py",
            "def f():\n    from ...supervisor.x import y",
            "transport imports supervisor",
        ),
        ("actors/partition/a.py", "from ...supervisor.tree import Tree", "actors imports supervisor"),
        (
            "actors/partition/a.py",
            "from ..gateway.peers import Peers",
            "actors/partition imports actors/gateway",
        ),
        ("actors/journal/a.py", "from ..partition import damage", "actors/journal imports actors/partition"),
        ("actors/log/a.py", "from ..journal.replay import Replay", "actors/log imports actors/journal"),
        (
            "actors/coordinator/share/a.py",
            "from ...subscriber.lanes import Lane",
            "actors/coordinator imports actors/subscriber",
        ),
        ("supervisor/a.py", "from ..actors.partition.machine import Partition", "supervisor imports actors"),
        ("supervisor/a.py", "import planaria.actors.log", "supervisor imports actors"),
        ("supervisor/a.py", "from planaria.transport import batch", "write it relative: planaria.transport"),
        ("actors/a.py", "import transport.batch", "write it relative: transport.batch"),
        ("actors/a.py", "from .. import Broker", "takes Broker from the root"),
        ("supervisor/a.py", "import rich.table", "only the command line may import rich.table"),
        (
            "supervisor/a.py",
            "from .cli import main",
            "only the command line may import planaria.supervisor.cli",
        ),
    ],
)
def test_rule_sees(path: str, text: str, complaint: str) -> None:
    assert any(fault.endswith(complaint) for fault in faults(Source(path, text)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("actors/partition/a.py", "from ...transport.batch import RecordBatch"),
        ("actors/partition/a.py", "from ..log.log import PartitionLog\nfrom ..journal import recorder"),
        ("actors/coordinator/share/a.py", "from ..records import Change\nfrom ...journal import recorder"),
        ("actors/journal/a.py", "from ..log.files import Files"),
        ("supervisor/a.py", "from .. import __version__"),
        ("supervisor/a.py", "from ..transport import loop\nSPEC = 'planaria.actors.partition.process:main'"),
        ("supervisor/cli/a.py", "import typer\nfrom ..broker import Broker"),
        ("__init__.py", "from .supervisor.broker import Broker"),
    ],
)
def test_rule_allows(path: str, text: str) -> None:
    assert faults(Source(path, text)) == []
