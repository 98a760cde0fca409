"""docs/protocol.md names every op with its fields, every error code with its `retriable`, and shows real bytes."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from header_vectors import SESSION_REQUESTS
from planaria.actors.controller.process import ControllerActor
from planaria.actors.gateway.machine import REQUESTS as PUBLIC
from planaria.actors.partition.process import PartitionProcess
from planaria.transport.protocol import (
    cluster,
    control,
    data,
    delayed,
    deployments,
    groups,
    links,
    mirrors,
    operations,
    progress,
    quotas,
    replication,
    security,
    session,
    shares,
    topics,
    transactions,
)
from planaria.transport.protocol.errors import RETRIABLE, ErrorBody, ErrorCode
from planaria.transport.protocol.message import InternalRequest, NodeRequest, PeerRequest, Reply, Request
from planaria.transport.protocol.topics import TopicConfig

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
VECTORS = ROOT / "tests" / "vectors"
DIALOGS = (
    cluster,
    control,
    data,
    delayed,
    deployments,
    groups,
    links,
    mirrors,
    operations,
    progress,
    quotas,
    replication,
    security,
    session,
    shares,
    topics,
    transactions,
)
BASES = (Request, InternalRequest, NodeRequest, PeerRequest)


def op_of(kind: type[Request]) -> str:
    return str(kind.__struct_config__.tag)


def section(op: str) -> str:
    found = re.search(rf"^#### `{op}`\n(.*?)(?=^##)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/protocol.md has no section on {op}"
    return found[1]


def reply_of(kind: type[Request]) -> type[Reply] | None:
    named = (getattr(dialog, f"{kind.__name__}Reply", None) for dialog in DIALOGS)
    return next((reply for reply in named if reply is not None), None)


@pytest.mark.parametrize("kind", PUBLIC, ids=op_of)
def test_every_op_has_its_fields_described(kind: type[Request]) -> None:
    text = section(op_of(kind))
    reply = reply_of(kind)
    fields = [*msgspec.structs.fields(kind), *(msgspec.structs.fields(reply) if reply else ())]
    missing = [
        field.name
        for field in fields
        if field.name not in Request.__struct_fields__ and not re.search(rf"\b{field.name}\b", text)
    ]
    assert missing == []


@pytest.mark.parametrize("kind", PUBLIC, ids=op_of)
def test_defaults_are_the_real_ones(kind: type[Request]) -> None:
    text = section(op_of(kind))
    for field in msgspec.structs.fields(kind):
        # The defaults of fields inside a struct are not the field's.
        declared = rf"^   {field.name}: (?:(?!\[\{{)[^=\n]*?|\[\{{[^=\n]*\}}[^=\n]*)= (\S+)"
        stated = re.search(declared, text.partition("<-")[0], re.MULTILINE)
        if stated is None:
            is_common = field.name in Request.__struct_fields__
            assert field.required or is_common, f"{field.name} has a default"
        else:
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            shown = {} if isinstance(default, msgspec.Struct) else default
            assert json.loads(stated[1]) == shown, field.name


def test_every_op_there_is_is_named() -> None:
    kinds = [kind for dialog in DIALOGS for kind in vars(dialog).values()]
    ops = {
        op_of(kind)
        for kind in (*kinds, *PUBLIC, *ControllerActor.requests, *PartitionProcess.requests)
        if isinstance(kind, type) and issubclass(kind, Request) and kind not in BASES
    }
    assert sorted(op for op in ops if f"`{op}`" not in DOCUMENT) == []


def test_the_grammar_has_every_field_that_all_requests_and_all_errors_may_have() -> None:
    grammar = section_of_grammar()
    for name, kind in (("request", Request), ("error", ErrorBody)):
        (line,) = re.findall(rf"^{name} +=(.*)$", grammar, re.MULTILINE)
        optional = {field.name for field in msgspec.structs.fields(kind) if field.default is msgspec.UNSET}
        assert set(re.findall(r'"(\w+)"\?', line)) == optional
        assert set(re.findall(r'"(\w+)":', line)) == {*kind.__struct_fields__} - optional | (
            {"op"} if kind is Request else set()
        )


def section_of_grammar() -> str:
    found = re.search(r"^## Requests and replies\n\n```\n(.*?)```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_every_error_code_is_there_with_its_truth() -> None:
    stated = dict(re.findall(r"^\| `([A-Z_]+)` \| (yes|no) \|", DOCUMENT, re.MULTILINE))
    assert stated == {str(code): "yes" if code in RETRIABLE else "no" for code in ErrorCode}


def test_every_choice_of_a_topic_is_there() -> None:
    table = section("create_topic")
    assert [name for name in TopicConfig.__struct_fields__ if f"`{name}`" not in table] == []


def test_the_session_is_from_the_vectors() -> None:
    shown = re.findall(r"^(?:->|<-) (\{.*\})$", DOCUMENT, re.MULTILINE)
    vectors = json.loads((VECTORS / "headers.json").read_text(encoding="utf-8"))
    session_vectors = [
        each for each in vectors if each["name"] in SESSION_REQUESTS and each["kind"] != "error"
    ]
    assert len(shown) == 2 * len(SESSION_REQUESTS)
    assert set(shown) == {each["json"] for each in session_vectors}


def test_the_batch_is_from_the_vectors() -> None:
    batches = json.loads((VECTORS / "batches.json").read_text(encoding="utf-8"))["batches"]
    drawn = re.search(r"the vector `one record`\):\n\n```\n(.*?)```", DOCUMENT, re.DOTALL)
    assert drawn is not None
    shown = "".join(line.partition("    ")[0] for line in drawn[1].splitlines()).replace(" ", "")
    assert shown == batches[0]["batch"]
