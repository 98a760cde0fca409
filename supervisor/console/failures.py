"""Errors as answers of the console: a status, a code and one line for a person.

Whatever a peer can cause ends here; an error of the console's own is left to the server, which answers 500.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...transport.client.errors import TimedOut
from ...transport.protocol.errors import ErrorCode, PlanariaError, ProtocolError

_STATUS = {
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.UNKNOWN_TOPIC: 404,
    ErrorCode.UNKNOWN_PARTITION: 404,
    ErrorCode.UNKNOWN_GROUP: 404,
    ErrorCode.UNKNOWN_ACTOR: 404,
    ErrorCode.TOPIC_EXISTS: 409,
    ErrorCode.GROUP_NOT_EMPTY: 409,
    ErrorCode.ACTOR_UNAVAILABLE: 503,
}
REFUSED = 400
NO_ANSWER = 504


class Refused(Exception):
    """The console refuses a request; the message is one line for a person."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def failure_of(error: Exception) -> dict[str, Any]:
    """Return the code and the message of an error."""
    if isinstance(error, TimedOut):
        return {"code": str(error.code), "message": f"the broker does not answer: {error.message}"}
    if isinstance(error, ProtocolError):
        return {"code": str(error.code), "message": error.message}
    if isinstance(error, Refused):
        return {"code": error.code, "message": str(error)}
    return {"code": type(error).__name__, "message": str(error)}


def _status_of(error: Exception) -> int:
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, TimedOut):
        return NO_ANSWER
    if isinstance(error, ProtocolError):
        return _STATUS.get(error.code, REFUSED)  # type: ignore[call-overload, no-any-return]
    return REFUSED


async def answer_failure(_: Request, error: Exception) -> Response:
    """Answer a request that raised PlanariaError or Refused."""
    return JSONResponse({"error": failure_of(error)}, status_code=_status_of(error))


HANDLERS: dict[Any, Any] = {PlanariaError: answer_failure, Refused: answer_failure}
