"""Rule: each option type of the public API has exactly the keys and types that are checked when the call is made, and
documents every key with its default. No public call takes `**options: Any`."""

import ast
import inspect
import os
from collections.abc import Sequence
from datetime import timedelta
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from msgspec import UnsetType

import planaria
from planaria.supervisor.config import BrokerConfig
from planaria.transport import keywords
from planaria.transport.addresses import TopicPartition
from planaria.transport.client.options import ConsumerOptions, ProducerOptions
from planaria.transport.client.share_messages import ShareOptions
from planaria.transport.protocol.quotas import QuotaChange
from planaria.transport.protocol.topics import TopicConfig, TopicConfigChange
from planaria.transport.subscription import SubscriberOptions

PUBLIC = (planaria.Broker, planaria.Client)
BY_BROKER = {"group", "topics", "handler", "endpoint", "sys_path", "identity", "version"}
# Option type -> the Struct that checks it, and the fields of that Struct which are arguments of their own.
PAIRS: list[tuple[type, type, set[str]]] = [
    (keywords.ProducerConfig, ProducerOptions, {"transactional_id"}),
    (keywords.ConsumerConfig, ConsumerOptions, set()),
    (keywords.ShareConsumerConfig, ShareOptions, set()),
    (keywords.SubscriberConfig, SubscriberOptions, BY_BROKER),
    (keywords.TopicSettings, TopicConfigChange, set()),
    (keywords.QuotaSettings, QuotaChange, set()),
    (keywords.BrokerSettings, BrokerConfig, {"endpoint"}),
]
# Type that a program may pass -> type of the Struct's field.
CONVERTED: dict[Any, Any] = {
    TopicPartition | tuple[str, int]: TopicPartition,
    keywords.TopicSettings: TopicConfig,
    str | os.PathLike[str]: str,
}

# Options whose default is the caller's.
BY_CALLER = {"request_timeout_ms", "client_id", "log_file"}


def types_of(kind: type) -> dict[str, Any]:
    return {name: plain(hint) for name, hint in get_type_hints(kind).items()}


def plain(hint: Any) -> Any:
    """The type without "left out" and timedelta, and with the types that CONVERTED names replaced."""
    if hint in CONVERTED:
        return CONVERTED[hint]
    if get_origin(hint) in (Union, UnionType):
        parts = [plain(each) for each in get_args(hint) if each not in (UnsetType, timedelta)]
        return reduce(or_, parts)
    if get_origin(hint) in (Sequence, list):
        return get_origin(hint)[plain(get_args(hint)[0])]
    return hint


@pytest.mark.parametrize(
    ("typed", "checked", "arguments"), PAIRS, ids=lambda each: getattr(each, "__name__", "")
)
def test_option_types_match_the_structs_that_check_them(
    typed: type, checked: type, arguments: set[str]
) -> None:
    expected = {name: hint for name, hint in types_of(checked).items() if name not in arguments}
    assert types_of(typed) == expected


@pytest.mark.parametrize(
    ("typed", "publish"),
    [
        (keywords.PublishDetails, planaria.Producer.publish),
        (keywords.MessageDetails, planaria.Transaction.publish),
    ],
)
def test_details_of_a_message_are_the_arguments_of_publish(typed: type, publish: Any) -> None:
    expected = get_type_hints(publish)
    for name in ("topic", "value", "return"):
        del expected[name]
    assert get_type_hints(typed) == expected


def test_every_option_documents_its_default() -> None:
    tree = ast.parse(Path(inspect.getfile(keywords)).read_text())
    faults = []
    for kind in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, text in zip(kind.body, [*kind.body[1:], None], strict=True):
            if not isinstance(field, ast.AnnAssign):
                continue
            told = (
                text.value.value
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                else ""
            )
            if "Default" not in str(told):
                faults.append(f"{kind.name}.{ast.unparse(field.target)}")
    assert faults == []


def test_a_default_in_the_documentation_is_the_default() -> None:
    tree = ast.parse(Path(inspect.getfile(keywords)).read_text())
    structs = {typed.__name__: checked for typed, checked, _ in PAIRS} | {"TopicSettings": TopicConfig}
    del structs["QuotaSettings"]
    faults = []
    for kind in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, text in zip(kind.body, kind.body[1:], strict=False):
            if not isinstance(field, ast.AnnAssign) or kind.name not in structs:
                continue
            name, written = ast.unparse(field.target), " ".join(ast.unparse(text).split())
            default = dict(zip(*fields_of(structs[kind.name]), strict=True)).get(name)
            if type(default) in (int, float, str) and name not in BY_CALLER:
                shown = f'"{default}"' if isinstance(default, str) else f"{default:,}"
                if f"Default {shown}" not in written.replace("\\'", "'"):
                    faults.append(f"{kind.name}.{name}: {shown}")
    assert faults == []


def fields_of(struct: Any) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    defaults = struct.__struct_defaults__
    return struct.__struct_fields__[-len(defaults) :], defaults


def test_every_duration_may_be_a_timedelta() -> None:
    for kind in (typed for typed, _, _ in PAIRS):
        for name, hint in get_type_hints(kind).items():
            assert not name.endswith("_ms") or timedelta in get_args(hint), f"{kind.__name__}.{name}"


def test_no_public_call_takes_options_without_types() -> None:
    faults = [
        f"{kind.__name__}.{name}"
        for kind in PUBLIC
        for name, call in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
        for parameter in inspect.signature(call).parameters.values()
        if parameter.kind is parameter.VAR_KEYWORD and parameter.annotation in (Any, "Any", int)
    ]
    assert faults == ["Broker.subscribe"], "its two kinds of options are typed by overloads"
