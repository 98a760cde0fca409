"""Details of problems (RFC 9457): the answers of the bridge to everything that is refused. Pure."""

from math import ceil
from typing import Any

import msgspec
from msgspec import UNSET

from ...transport.protocol.errors import ErrorBody, ErrorCode
from ...transport.protocol.message import Reply
from .connections import HttpResponse

CONTENT_TYPE = "application/problem+json"
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    421: "Misdirected Request",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    507: "Insufficient Storage",
}
STATUS = {
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.INVALID_BATCH: 400,
    ErrorCode.INVALID_TIMESTAMP: 400,
    ErrorCode.INVALID_TOPIC: 400,
    ErrorCode.INVALID_CONFIG: 400,
    ErrorCode.INVALID_GROUP: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.UNKNOWN_TOPIC: 404,
    ErrorCode.UNKNOWN_PARTITION: 404,
    ErrorCode.UNKNOWN_TOPIC_ID: 404,
    ErrorCode.UNKNOWN_GROUP: 404,
    ErrorCode.UNKNOWN_MEMBER: 404,
    ErrorCode.MESSAGE_TOO_LARGE: 413,
    ErrorCode.OFFSET_OUT_OF_RANGE: 416,
    ErrorCode.THROTTLED: 429,
    ErrorCode.BACKPRESSURE: 429,
    ErrorCode.OVERLOADED: 429,
    ErrorCode.CORRUPT_LOG: 500,
    ErrorCode.TIMED_OUT: 504,
    ErrorCode.STORAGE_FULL: 507,
}
"""Any other error is 503 if it is retriable, otherwise 409: the state does not permit the request."""


def problem(
    status: int, detail: str, headers: tuple[tuple[str, str], ...] = (), **fields: Any
) -> HttpResponse:
    body = {"title": TITLES[status], "status": status, "detail": detail, **fields}
    return HttpResponse(status, msgspec.json.encode(body) + b"\n", CONTENT_TYPE, headers)


def problem_of(error: ErrorBody) -> HttpResponse:
    """Return the problem of an error of the broker, with all its fields."""
    fields = msgspec.to_builtins(error)
    message = fields.pop("message")
    known = STATUS.get(ErrorCode(error.code)) if error.code in ErrorCode.__members__ else None
    status = known if known is not None else 503 if error.retriable else 409
    headers: list[tuple[str, str]] = []
    if error.retry_after_ms is not UNSET:
        headers.append(("retry-after", str(max(1, ceil(error.retry_after_ms / 1_000)))))
    if status == 401:
        headers.append(("www-authenticate", 'Bearer realm="planaria", Basic realm="planaria"'))
    return problem(status, message, tuple(headers), **fields)


def shown(reply: Reply) -> bytes:
    """Return a reply as JSON, bytes in base64."""
    fields = msgspec.to_builtins(reply)
    fields.pop("id", None)
    return msgspec.json.encode(fields) + b"\n"
