"""Requests and answers of etcd's JSON gateway: paths, bodies, status. Pure.

Keys and values are base64, 64-bit numbers come as strings, and fields that are zero or empty are left out. The paths
are the same from etcd 3.4 on (https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/).
"""

from typing import Any

import msgspec
from msgspec import Struct

from .requests import (
    Authenticate,
    Done,
    Found,
    GrantLease,
    KeepLease,
    Lease,
    Outcome,
    Pair,
    Range,
    Refusal,
    Request,
    RevokeLease,
    Silence,
    Token,
    Transact,
    Transacted,
    WatchBegan,
    WatchEnded,
    WatchEvent,
    WatchEvents,
    WatchMessage,
    Write,
)

WATCH_PATH = "/v3/watch"
WATCH_HEADERS = {"Grpc-Metadata-hasleader": "true"}
"""A member without a quorum ends the watch, which would otherwise stay silent."""
OK_STATUS = 200


class _Header(Struct):
    cluster_id: int = 0
    revision: int = 0


class _Pair(Struct):
    key: bytes
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    lease: int = 0

    def pair(self) -> Pair:
        return Pair(self.key, self.value, self.create_revision, self.mod_revision, self.lease)


class _Found(Struct):
    header: _Header
    kvs: tuple[_Pair, ...] = ()
    count: int = 0
    more: bool = False


class _Response(Struct):
    response_range: _Found | None = None


class _Transacted(Struct):
    header: _Header
    succeeded: bool = False
    responses: tuple[_Response, ...] = ()


class _Lease(Struct):
    lease: int = msgspec.field(name="ID", default=0)
    ttl_s: int = msgspec.field(name="TTL", default=0)


class _KeptLease(Struct):
    result: _Lease


class _Token(Struct):
    token: str


class _Refusal(Struct):
    code: int
    message: str = ""


class _StreamError(Struct):
    message: str = ""


class _Event(Struct):
    kv: _Pair
    type: str = "PUT"


class _WatchResult(Struct):
    created: bool = False
    canceled: bool = False
    cancel_reason: str = ""
    compact_revision: int = 0
    events: tuple[_Event, ...] = ()


class _WatchLine(Struct):
    result: _WatchResult | None = None
    error: _StreamError | None = None


def encode_request(request: Request) -> tuple[str, bytes]:
    """Return the path and the body."""
    match request:
        case Range():
            return "/v3/kv/range", _json(_range(request))
        case Transact():
            return "/v3/kv/txn", _json(_transaction(request))
        case GrantLease(ttl_s=ttl_s):
            return "/v3/lease/grant", _json({"TTL": ttl_s})
        case KeepLease(lease=lease):
            return "/v3/lease/keepalive", _json({"ID": lease})
        case RevokeLease(lease=lease):
            return "/v3/lease/revoke", _json({"ID": lease})
        case Authenticate(user=user, password=password):
            return "/v3/auth/authenticate", _json({"name": user, "password": password})


def encode_watch(key: bytes, end: bytes, start_revision: int) -> bytes:
    return _json({"create_request": {"key": key, "range_end": end, "start_revision": start_revision}})


_json = msgspec.json.encode


def _range(request: Range) -> dict[str, Any]:
    fields = {
        "key": request.key,
        "range_end": request.end,
        "limit": request.limit,
        "revision": request.revision,
        "min_mod_revision": request.modified_since,
    }
    return {name: value for name, value in fields.items() if value}


def _transaction(request: Transact) -> dict[str, Any]:
    compares = [
        {
            "key": compare.key,
            "target": "CREATE" if compare.of_creation else "MOD",
            "create_revision" if compare.of_creation else "mod_revision": compare.revision,
        }
        for compare in request.compares
    ]
    return {
        "compare": compares,
        "success": [_write(write) for write in request.writes],
        "failure": [{"request_range": {"key": key}} for key in request.otherwise],
    }


def _write(write: Write) -> dict[str, Any]:
    if write.value is None:
        return {"request_delete_range": {"key": write.key}}
    return {"request_put": {"key": write.key, "value": write.value, "lease": write.lease}}


def decode_reply(request: Request, status: int, body: bytes) -> Outcome:
    """Return the outcome of a request. An answer that is none of etcd's is Silence: a proxy may have given it."""
    try:
        if status != OK_STATUS:
            refusal = _decode(body, _Refusal)
            return Refusal(refusal.code, refusal.message)
        return _reply(request, body)
    except msgspec.MsgspecError as error:
        return Silence(f"status {status}, and not an answer of etcd: {error}")


def decode_refusal(status: int, body: bytes) -> str:
    """Return the reason in the refusal of a watch, for operators."""
    try:
        error = _decode(body, _WatchLine).error
    except msgspec.MsgspecError:
        error = None
    return f"status {status}: {error.message}" if error is not None else f"status {status}: {body[:500]!r}"


def _reply(request: Request, body: bytes) -> Outcome:
    match request:
        case Range():
            found = _decode(body, _Found)
            pairs = tuple(pair.pair() for pair in found.kvs)
            header = found.header
            return Found(header.revision, header.cluster_id, pairs, found.count, found.more)
        case Transact():
            done = _decode(body, _Transacted)
            ranges = [each.response_range for each in done.responses if each.response_range is not None]
            pairs = tuple(pair.pair() for found in ranges for pair in found.kvs)
            return Transacted(done.header.revision, done.succeeded, pairs)
        case GrantLease():
            lease = _decode(body, _Lease)
            return Lease(lease.lease, lease.ttl_s)
        case KeepLease():
            lease = _decode(body, _KeptLease).result
            return Lease(lease.lease, lease.ttl_s)
        case RevokeLease():
            return Done()
        case Authenticate():
            return Token(_decode(body, _Token).token)


def decode_watch(line: bytes) -> list[WatchMessage]:
    """Return the messages in a line of the stream."""
    try:
        message = _decode(line, _WatchLine)
    except msgspec.MsgspecError as error:
        return [WatchEnded(f"not an answer of etcd: {error}")]
    if message.result is None:
        return [WatchEnded(message.error.message if message.error is not None else "an empty answer")]
    result = message.result
    if result.canceled:
        return [WatchEnded(result.cancel_reason or "cancelled", result.compact_revision > 0)]
    found: list[WatchMessage] = [WatchBegan()] if result.created else []
    if result.events:
        found.append(WatchEvents(tuple(_event(event) for event in result.events)))
    return found


def _event(event: _Event) -> WatchEvent:
    pair = event.kv
    value = None if event.type == "DELETE" else pair.value
    return WatchEvent(pair.key, value, pair.mod_revision, pair.lease)


T = Any


def _decode(body: bytes, kind: T) -> T:
    # Not strict: numbers of 64 bits are strings.
    return msgspec.json.decode(body, type=kind, strict=False)
