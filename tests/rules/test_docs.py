"""Rules of the Markdown files: links resolve, named files, tests and methods exist, and the tables of
settings hold every existing setting with its default.
"""

import ast
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from planaria import App
from planaria.actors.coordinator.share.records import ShareSettings
from planaria.supervisor.cli.app import root
from planaria.supervisor.config import BrokerConfig
from planaria.transport.client.options import ConsumerOptions, ProducerOptions
from planaria.transport.client.share_messages import ShareOptions
from planaria.transport.protocol.topics import TopicConfig
from planaria.transport.subscription import SubscriberOptions
from source_tree import ROOT, package_sources, project_files

LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
FENCED = re.compile(r"^( *)(```|~~~).*?^ *\2`*\s*$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)
NAMED_PATH = re.compile(r"((?:transport|actors|supervisor|tests|examples|docs)/[\w./-]*)(?:::(\w+))?")
GUARANTEES = re.compile(r"\| (guarantee|claim|promise) \| (test|how it is shown) \|")
TEST_FUNCTION = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
NAMED_MEMBER = re.compile(r"([A-Z]\w*[a-z]\w*)\.(\w+)")
NAMED_CONSTANT = re.compile(
    r"(?!PLANARIA_|ZMQ_)(?:MAX_[A-Z_]+|[A-Z_]+_(?:MS|BYTES|LIMIT|LANES|SLOTS|MARK|RECORDS|BATCHES))"
)


def broken_links(file: Path) -> list[str]:
    return [
        f"{file.name}: {target}" for target in links(file.read_text()) if not leads_somewhere(file, target)
    ]


def links(text: str) -> Iterator[str]:
    for match in LINK.finditer(CODE_SPAN.sub("", FENCED.sub("", text))):
        if not ELSEWHERE.match(match[1]):
            yield match[1]


def leads_somewhere(file: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    destination = file.parent / path if path else file
    if not destination.exists():
        return False
    return not anchor or destination.suffix != ".md" or anchor in anchors(destination.read_text())


def anchors(text: str) -> set[str]:
    """Return GitHub's anchors of the headings."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCED.sub("", text)):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        name, repeats = slug, 0
        while name in found:
            repeats += 1
            name = f"{slug}-{repeats}"
        found.add(name)
    return found


def test_links_lead_somewhere() -> None:
    files = project_files(".md")
    assert ROOT / "CHANGELOG.md" in files
    found = [fault for file in files for fault in broken_links(file)]
    assert not found, "\n".join(found)


def test_rule_sees_broken_links(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# The log\n\n## `flush`: when it syncs\n\n## The log\n")
    file = tmp_path / "a.md"
    file.write_text(
        "# Here\n"
        "[good](other.md) [good](other.md#the-log) [good](other.md#the-log-1)\n"
        "[good](other.md#flush-when-it-syncs)\n"
        "[good](#here) [good](https://example.org/x) [good](.) `[code](missing.md)`\n"
        "```\n[code](missing.md)\n```\n"
        '[bad](missing.md) [bad](other.md#nothing) [bad](#nowhere) ![bad](missing.png "title")\n'
    )
    assert broken_links(file) == [
        "a.md: missing.md",
        "a.md: other.md#nothing",
        "a.md: #nowhere",
        "a.md: missing.png",
    ]


def false_names(file: Path) -> list[str]:
    """Return paths, tests, constants and members of classes in code spans that do not exist."""
    spans = re.findall(r"`([^`\n]+)`", FENCED.sub("", file.read_text()))
    return [f"{file.name}: {span}" for span in spans if not is_there(span)]


def is_there(span: str) -> bool:
    if path := NAMED_PATH.fullmatch(span):
        found = ROOT / path[1]
        return found.exists() and (path[2] is None or defines(found.read_text(), path[2]))
    if member := NAMED_MEMBER.fullmatch(span):
        return member[2] in members_of(member[1])
    return span in constants() if NAMED_CONSTANT.fullmatch(span) else True


def defines(text: str, name: str) -> bool:
    return f"def {name}(" in text or bool(re.search(rf"^(class )?{name}\b( =|:|\()", text, re.MULTILINE))


def members_of(name: str) -> set[str]:
    """Return the members of the package's classes of this name, and of their bases."""
    found: set[str] = set()
    for node in classes().get(name, ()):
        for inner in ast.walk(node):
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(inner.name)
            elif isinstance(inner, ast.AnnAssign | ast.Assign):
                targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
                found |= {ast.unparse(target).removeprefix("self.") for target in targets}
        for base in node.bases:
            found |= members_of(ast.unparse(base))
    return found


@cache
def constants() -> set[str]:
    nodes = (node for source in package_sources() for node in source.tree.body)
    return {ast.unparse(target) for node in nodes if isinstance(node, ast.Assign) for target in node.targets}


@cache
def classes() -> Mapping[str, list[ast.ClassDef]]:
    found: dict[str, list[ast.ClassDef]] = {}
    for source in package_sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


def test_what_is_named_exists() -> None:
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert len(files) > 1
    found = [fault for file in files for fault in false_names(file)]
    assert not found, "\n".join(found)


def test_rule_sees_false_names(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    file.write_text(
        "`transport/batch.py` `tests/rules/` `tests/rules/test_docs.py::test_links_lead_somewhere`\n"
        "`Accumulator.publish` `Producer.publish` `SubscriberOptions.retries` `Replies.dropped`\n"
        "`planaria.toml` `ORDERS.dlq` `MAX_RUNS` `HANDSHAKE_MS` `UNKNOWN_TOPIC`\n"
        "`transport/nothing.py` `tests/rules/test_docs.py::test_nothing` `Accumulator.nothing` `Nobody.publish`\n"
        "`NOTHING_MS`\n"
    )
    assert false_names(file) == [
        "a.md: transport/nothing.py",
        "a.md: tests/rules/test_docs.py::test_nothing",
        "a.md: Accumulator.nothing",
        "a.md: Nobody.publish",
        "a.md: NOTHING_MS",
    ]


def weak_rows(file: Path) -> list[str]:
    """Return rows of guarantees that name no test function, or a folder, or hide that a test is one of the long ones."""
    found = []
    for row in guarantee_rows(file.read_text()):
        *_, shown = [cell.strip() for cell in row.strip().strip("|").split(" | ")]
        named = re.findall(r"`(tests/[^`]*)`( \(chaos\))?", shown)
        functions = [(TEST_FUNCTION.fullmatch(span), bool(mark)) for span, mark in named]
        if not functions or not all(match for match, _ in functions):
            found.append(f"{file.name}: names no test function: {row}")
        for match, is_said in functions:
            if match and is_chaos(match[1], match[2]) != is_said:
                found.append(f"{file.name}: chaos: {match[0]}")
    return found


def guarantee_rows(text: str) -> Iterator[str]:
    is_inside = False
    for line in text.splitlines():
        is_head = bool(GUARANTEES.match(line))
        is_inside = is_head or (is_inside and line.startswith("|"))
        if is_inside and not is_head and not line.startswith("|---"):
            yield line


def is_chaos(path: str, name: str) -> bool:
    """Return True if the ordinary run omits a test: it is marked, or its whole module is."""
    tree = ast.parse((ROOT / path).read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node.targets[0]):
            return "mark.chaos" in ast.unparse(node.value) or is_marked(node_of(tree, name))
    return is_marked(node_of(tree, name))


def node_of(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return next(found, None)


def is_marked(function: ast.FunctionDef | None) -> bool:
    return function is not None and "pytest.mark.chaos" in map(ast.unparse, function.decorator_list)


def test_every_guarantee_names_a_test_function() -> None:
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert sum(1 for file in files for _ in guarantee_rows(file.read_text())) > 100
    found = [fault for file in files for fault in weak_rows(file)]
    assert not found, "\n".join(found)


def test_rule_sees_weak_rows(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    good = "tests/rules/test_docs.py::test_links_lead_somewhere"
    long = "tests/partition/test_compaction_latency.py::test_appends_hardly_wait_for_compaction"
    rows = [
        "`tests/rules`",
        f"`{good}`, `tests/rules/test_docs.py`",
        "by hand",
        f"`{long}`",
        f"`{good}` (chaos)",
    ]
    fine = [f"`{good}`", f"`{long}` (chaos)", f"`{good}`, `planaria chaos`"]
    for head in ("guarantee | test", "claim | test", "promise | how it is shown"):
        file.write_text(
            f"| {head} |\n|---|---|\n" + "".join(f"| it holds | {row} |\n" for row in fine + rows)
        )
        assert len(weak_rows(file)) == len(rows)


def wrong_rows(page: str, heading: str, defaults: Mapping[str, Any]) -> list[str]:
    """Return settings that the tables below a heading omit, or give another default; and rows without a setting."""
    text = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    told = dict(setting_rows(text.splitlines()))
    missing = [f"{name}: no row" for name in defaults if name not in told]
    return missing + [
        f"{name}: {told[name]}, not {shown(default)}"
        for name, default in defaults.items()
        if name in told and default is not msgspec.NODEFAULT and told[name] != shown(default)
    ]


def setting_rows(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield name and default, from the tables whose first column is `key` or `option`."""
    is_inside = False
    for line in lines:
        is_inside = line.startswith(("| key |", "| option ")) or (is_inside and line.startswith("|"))
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if is_inside and len(cells) > 1:
            for name in re.findall(r"`(\w+)`", cells[0]):
                yield name, cells[1].strip("`")


def shown(default: Any) -> str:
    return json.dumps(default) if isinstance(default, str) else str(default)


def fields_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.name: field.default for field in msgspec.structs.fields(kind)}


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    # Its default is the other table.
    broker = fields_of(BrokerConfig) | {"topic_defaults": msgspec.NODEFAULT}
    assert wrong_rows(page, "Configuration", broker | fields_of(TopicConfig)) == []


def test_every_option_is_documented() -> None:
    page = (ROOT / "docs/consuming.md").read_text()
    found = {
        "consumer": wrong_rows(page, "Consumers", fields_of(ConsumerOptions)),
        "subscriber": wrong_rows(page, "Hosted subscribers", fields_of(SubscriberOptions)),
        "producer": wrong_rows(page, "Producers", fields_of(ProducerOptions)),
    }
    assert found == {"consumer": [], "subscriber": [], "producer": []}


def test_every_option_of_a_work_queue_is_documented() -> None:
    page = (ROOT / "docs/delivery.md").read_text()
    defaults = fields_of(ShareSettings) | fields_of(ShareOptions)
    # Their defaults are elsewhere, or words.
    elsewhere = ("lock_ms", "dead_letter", "member_id", "request_timeout_ms")
    assert wrong_rows(page, "Work queues", defaults | dict.fromkeys(elsewhere, msgspec.NODEFAULT)) == []


def wrong_options(page: str, heading: str, *commands: Any) -> list[str]:
    """Return options of commands that the table below a heading omits, or gives another default or no limits; and rows
    of no option. `--connect` may be left out."""
    text = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in text.splitlines() if line.startswith("| `--")]
    told = {row[0].split("`")[1].split()[0]: row for row in rows}
    known = {param.opts[0]: param.default for command in commands for param in command.params}
    known = {name: default for name, default in known.items() if name.startswith("--")}
    optional = {"--help", "--connect"}
    found = [f"{name}: no row" for name in known.keys() - told.keys() - optional]
    found += [f"{name}: no such option" for name in told.keys() - known.keys()]
    for name, row in told.items():
        default = known.get(name)
        is_plain = isinstance(default, int | str) and not isinstance(default, bool)
        if is_plain and row[1].strip("`") != str(default):
            found.append(f"{name}: {row[1]}, not {default}")
        if len(row) != 4 or not row[1] + row[3]:
            found.append(f"{name}: no default, unit, limits and meaning")
    return sorted(found)


def test_every_option_of_a_worker_and_of_a_deployment_is_documented() -> None:
    page = (ROOT / "docs/workers.md").read_text()
    deploy = root().commands["deploy"].commands  # type: ignore[attr-defined]
    deploying = [deploy[name] for name in ("create", "update", "logs")]
    assert wrong_options(page, "planaria worker", root().commands["worker"]) == []  # type: ignore[attr-defined]
    assert wrong_options(page, "Deployments", *deploying) == []
    arguments = list(inspect.signature(App.subscribe).parameters)[1:]
    rows = re.findall(
        r"^\| `(\w+)` \| \S", page.partition("| argument |")[2].partition("\n\n")[0], re.MULTILINE
    )
    assert rows == arguments


def test_rule_sees_wrong_options() -> None:
    rows = "| `--processes` | `2` | x | y |\n| `--z` | | | |\n"
    page = f"\n## W\n\n| option | default | unit | limits |\n|---|---|---|---|\n{rows}"
    found = wrong_options(page, "W", root().commands["worker"])  # type: ignore[attr-defined]
    assert "--processes: `2`, not 1" in found
    assert {"--watch: no row", "--z: no such option", "--z: no default, unit, limits and meaning"} <= set(
        found
    )


def commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, set[str]]]:
    """Yield each command of a group, and its options by their long names."""
    for name, command in group.commands.items():
        here = (*path, name)
        if hasattr(command, "commands"):
            yield from commands(command, here)
        else:
            found = {option for each in command.params for option in each.opts if option.startswith("--")}
            yield " ".join(here), found - {"--help", "--connect", "--json"}


def command_rows(page: str) -> dict[str, set[str]]:
    """Return the commands of the table, without arguments, and their options."""
    text = page.partition("\n## Commands\n")[2].partition("\n## ")[0]
    rows: dict[str, set[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if len(cells) > 1 and (command := re.match(r"`(planaria(?: [a-z]+)+)", cells[0])):
            rows[command[1]] = set(re.findall(r"`(--[\w-]+)`", cells[1]))
    return rows


def test_every_command_is_documented() -> None:
    rows = command_rows((ROOT / "docs/operations.md").read_text())
    assert rows == dict(commands(root(), ("planaria",)))


def test_rule_sees_commands() -> None:
    page = "\n## Commands\n\n| command | options |\n|---|---|\n| `planaria a b TOPIC` | `--x`, `--y` (2) |\n"
    assert command_rows(page) == {"planaria a b": {"--x", "--y"}}


def test_rule_sees_wrong_rows() -> None:
    page = (
        "# A\n\n## Options\n\n| key | default | unit |\n|---|---|---|\n"
        '| `a_ms` | `5` | ms |\n| `b`, `c` | `"x"` | |\n\n'
        "| when | then |\n|---|---|\n| `b` | no |\n\n## Others\n\n| key | default |\n|---|---|\n| `d` | `1` |\n"
    )
    assert wrong_rows(page, "Options", {"a_ms": 5, "b": "x", "c": "x"}) == []
    assert wrong_rows(page, "Options", {"a_ms": 6, "d": 1}) == ["d: no row", "a_ms: 5, not 6"]
