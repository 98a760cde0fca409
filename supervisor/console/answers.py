"""The parts that the handlers of all pages share: the user's connection, the body of a request, the answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from ...transport.addresses import as_text
from .broker_link import BrokerLink
from .failures import Refused
from .pace import Calls, flow_of
from .sessions import Session, Sessions

P = ParamSpec("P")
ResultT = TypeVar("ResultT")
BodyT = TypeVar("BodyT")
BODY_TIMEOUT_S = 10.0
_encode = msgspec.json.Encoder(enc_hook=as_text).encode


def sessions_of(request: Request) -> Sessions:
    found: Sessions = request.app.state.sessions
    return found


def session_of(request: Request) -> Session:
    """Return the session of a request. Raises Refused if its user has to sign in."""
    found = sessions_of(request).of(request)
    if found is None:
        raise Refused(401, "UNAUTHENTICATED", "sign in first")
    return found


async def body_of(request: Request, kind: type[BodyT]) -> BodyT:
    """Return the JSON body of a request. Raises Refused."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await request.body()
        return msgspec.json.decode(body, type=kind)
    except TimeoutError:
        raise Refused(408, "TIMED_OUT", "the body of the request did not arrive") from None
    except msgspec.MsgspecError as error:
        raise Refused(400, "INVALID_REQUEST", str(error)) from error


async def asked(request: Request, method: Callable[P, ResultT], *args: P.args, **kwargs: P.kwargs) -> ResultT:
    """Run a call to the broker beside the event loop, in its turn; its errors are answered by failures.py."""
    calls: Calls = request.app.state.calls
    return await calls.run(flow_of(request.scope), lambda: method(*args, **kwargs))


def answer(found: Any) -> Response:
    """Return a JSON answer: a description of the client, or plain values."""
    return Response(_encode(found), media_type="application/json")


def reads(look: Callable[[BrokerLink, QueryParams], Any]) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that answers with the result of `look`, which runs beside the event loop."""

    async def handle(request: Request) -> Response:
        return answer(await asked(request, look, session_of(request).link, request.query_params))

    return handle


def acts(
    kind: type[BodyT], act: Callable[[BrokerLink, BodyT], Any]
) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that runs `act` with the body of the request, beside the event loop."""

    async def handle(request: Request) -> Response:
        link = session_of(request).link
        return answer(await asked(request, act, link, await body_of(request, kind)) or {})

    return handle


def number_in(query: QueryParams, name: str, default: int, most: int) -> int:
    """Return a number of the query, at most `most`. Raises Refused."""
    text = query.get(name, str(default))
    if not text.isdecimal() or len(text) > 19:
        raise Refused(400, "INVALID_REQUEST", f"{name}: {text[:50]!r} is not a number")
    return min(int(text), most)
