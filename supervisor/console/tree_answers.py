"""Answers of the page of the tree: the stream of its changes, everything known of one process, kill and revive."""

from collections.abc import AsyncIterator

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ...transport.protocol.operations import SignalName
from .answers import answer, asked, body_of, session_of
from .failures import Refused
from .feed import TooManyViewers

EVENTS = {"content-type": "text/event-stream", "x-accel-buffering": "no"}


class KillBody(Struct, forbid_unknown_fields=True):
    address: str
    signal: SignalName


class ReviveBody(Struct, forbid_unknown_fields=True):
    address: str


async def stream(request: Request) -> Response:
    events = session_of(request).feed.stream(request.app.state.pace)
    try:
        first = await anext(events)
    except TooManyViewers:
        raise Refused(503, "OVERLOADED", "too many pages follow the tree") from None

    async def rest() -> AsyncIterator[bytes]:
        try:
            yield b"retry: 500\n\n" + first
            async for event in events:
                yield event
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    return StreamingResponse(rest(), headers=EVENTS)


async def actor(request: Request) -> Response:
    """Answer with everything that is known of one process."""
    link = session_of(request).link
    found = await asked(request, link.status)
    address = request.query_params.get("address", "")
    for each in found.actors:
        if each.address == address:
            return answer(msgspec.structs.asdict(each))
    raise Refused(404, "UNKNOWN_ACTOR", f"there is no actor {address[:250]!r}")


async def kill(request: Request) -> Response:
    link = session_of(request).link
    order = await body_of(request, KillBody)
    return answer(await asked(request, link.kill, order.address, order.signal))


async def revive(request: Request) -> Response:
    link = session_of(request).link
    order = await body_of(request, ReviveBody)
    return answer({"state": await asked(request, link.revive, order.address)})


ROUTES = [
    Route("/api/tree", stream),
    Route("/api/actor", actor),
    Route("/api/kill", kill, methods=["POST"]),
    Route("/api/revive", revive, methods=["POST"]),
]
