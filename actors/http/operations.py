"""The operations of the HTTP bridge: method, path, and the request of the protocol that each stands for. Pure.

openapi.py describes them from this table, so the description is the code.
"""

import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ...transport.addresses import is_internal
from ...transport.protocol.data import (
    Fetch,
    FetchReply,
    ListOffsets,
    ListOffsetsReply,
    Publish,
    PublishReply,
)
from ...transport.protocol.errors import ErrorBody, ErrorCode, ProtocolError
from ...transport.protocol.groups import (
    CommitOffsets,
    CommitOffsetsReply,
    FetchOffsets,
    FetchOffsetsReply,
    GroupHeartbeat,
    GroupHeartbeatReply,
    LeaveGroup,
)
from ...transport.protocol.message import Done, Reply, Request
from ...transport.protocol.shares import Acknowledge, AcknowledgeReply, Acquire, AcquireReply
from ...transport.protocol.topics import ListTopics, ListTopicsReply
from .connections import HttpRequest

OF_THE_ENVELOPE = ("id", "greeted", "client_id", "format")
"""Fields that the bridge sets itself."""


class Operation(Struct, frozen=True):
    method: Literal["GET", "POST"]
    path: str
    kind: type[Request]
    reply_type: type[Reply]
    summary: str
    hidden: tuple[str, ...] = ()
    """Fields of the request that need another client than this one."""
    fixed: tuple[tuple[str, Any], ...] = ()

    @property
    def names(self) -> list[str]:
        """Names of the parameters in the path."""
        return re.findall(r"\{(\w+)\}", self.path)

    @property
    def is_query(self) -> bool:
        """True if the fields are parameters; otherwise they are a JSON object in the body."""
        return self.method == "GET"

    @property
    def fields(self) -> list[msgspec.structs.FieldInfo]:
        """Fields of the request that a client gives, beside those in the path."""
        absent = {*OF_THE_ENVELOPE, *self.hidden, *self.names}
        return [field for field in msgspec.structs.fields(self.kind) if field.name not in absent]

    def request_of(self, request: HttpRequest, names: dict[str, str]) -> Request:
        """Return the request that a client has described. Raises msgspec's errors, or ProtocolError."""
        given: dict[str, Any] = dict(request.query)
        if not self.is_query:
            given = msgspec.json.decode(request.body or b"{}", type=dict[str, Any])
        known = {field.name for field in self.fields}
        for name in given:
            if name not in known:
                raise ProtocolError(ErrorCode.INVALID_REQUEST, f"there is no field {name[:100]!r} here")
        if self.kind is Publish:
            given = _with_json(given)
        fields = {**given, **dict(self.fixed)}
        if self.is_query:
            return msgspec.convert({**fields, **names}, self.kind, strict=False)
        numbers = {name: int(text) if name == "partition" else text for name, text in names.items()}
        return msgspec.convert({**fields, **numbers}, self.kind)

    @staticmethod
    def refusal_of(request: Request) -> ErrorBody | None:
        """Return the refusal of a write to a topic of the broker's own."""
        if isinstance(request, Publish) and is_internal(request.topic):
            return ErrorBody(ErrorCode.FORBIDDEN, f"{request.topic} is an internal topic")
        return None


_RECORDS = (("format", "records"),)
OPERATIONS = (
    Operation("GET", "/topics", ListTopics, ListTopicsReply, "List the topics."),
    Operation(
        "POST",
        "/topics/{topic}/records",
        Publish,
        PublishReply,
        "Publish records. Answered when they are durable; 207 if some of them were refused.",
    ),
    Operation(
        "GET",
        "/topics/{topic}/partitions/{partition}/records",
        Fetch,
        FetchReply,
        "Read records from an offset, or follow them as an event stream.",
        ("min_bytes", "topic_id", "leader_epoch"),
        _RECORDS,
    ),
    Operation(
        "GET",
        "/topics/{topic}/partitions/{partition}/offsets",
        ListOffsets,
        ListOffsetsReply,
        "Find an offset: the earliest, the latest, or the first at or after a time.",
    ),
    Operation(
        "POST",
        "/groups/{group}/acquire",
        Acquire,
        AcquireReply,
        "Take records of a work queue, and wait for some.",
        (),
        _RECORDS,
    ),
    Operation(
        "POST",
        "/groups/{group}/acknowledge",
        Acknowledge,
        AcknowledgeReply,
        "Accept, release, fail, reject or renew records of a work queue.",
    ),
    Operation(
        "POST",
        "/groups/{group}/heartbeat",
        GroupHeartbeat,
        GroupHeartbeatReply,
        "Join a consumer group, or remain in it, and wait for a change of the assignment.",
    ),
    Operation("POST", "/groups/{group}/leave", LeaveGroup, Done, "Leave a consumer group."),
    Operation(
        "GET",
        "/groups/{group}/offsets",
        FetchOffsets,
        FetchOffsetsReply,
        "Read the committed offsets of a consumer group.",
        ("partitions", "require_stable"),
    ),
    Operation(
        "POST",
        "/groups/{group}/offsets",
        CommitOffsets,
        CommitOffsetsReply,
        "Commit offsets of a consumer group.",
        ("producer_id", "producer_epoch"),
    ),
)
_PATTERNS = [
    (operation, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.path)))
    for operation in OPERATIONS
]


def match(method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
    """Return the operation of a request, and the parameters in its path."""
    for operation, pattern in _PATTERNS:
        found = pattern.fullmatch(path)
        if found is not None and operation.method == method:
            names = found.groupdict()
            if _is_number(names.get("partition", "0")):
                return operation, names
    return None


def methods_of(path: str) -> list[str]:
    """Return the methods of a path; none if there is no such path."""
    return [
        operation.method
        for operation, pattern in _PATTERNS
        if (found := pattern.fullmatch(path)) and _is_number(found.groupdict().get("partition", "0"))
    ]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _with_json(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with each record's `json` as its text."""
    records = given.get("records")
    if not isinstance(records, list):
        return given
    made = []
    for record in records:
        if isinstance(record, dict) and "json" in record:
            if record.get("value") is not None or record.get("value_text") is not None:
                raise ProtocolError(
                    ErrorCode.INVALID_REQUEST, "a record has one of json, value and value_text"
                )
            rest = {name: value for name, value in record.items() if name != "json"}
            record = {**rest, "value_text": msgspec.json.encode(record["json"]).decode()}  # noqa: PLW2901
        made.append(record)
    return {**given, "records": made}
