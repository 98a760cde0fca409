"""Answers of the page of messages: those of a place in the log, those that arrive now, and one that is published."""

import time
from collections.abc import AsyncIterator, Mapping
from itertools import islice
from typing import Any, Literal

import anyio
import msgspec
from anyio import to_thread
from msgspec import Struct
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ...transport.client.consumer import Consumer
from ...transport.protocol.errors import PlanariaError
from .answers import acts, number_in, reads, session_of
from .broker_link import BrokerLink
from .decoding import shown_message
from .failures import Refused, failure_of
from .tree_answers import EVENTS

MAX_MESSAGES = 500
SEARCH_S = 0.25
"""Time of an answer. A search by key reads every message, so the page asks again, from the places reached."""
SEARCHED_AT_END = 50_000
"""Messages of each partition that a search at the end reads."""
TAIL_MESSAGES = 50
"""Messages that a tail shows at once; of more, the last ones."""
TAIL_S = 0.3
MAX_TAILS = 16


class PublishBody(Struct, forbid_unknown_fields=True):
    topic: str
    value: str
    format: Literal["json", "text", "hex"] = "text"
    key: str | None = None
    partition: int | None = None
    headers: dict[str, str] = {}


def messages(link: BrokerLink, query: QueryParams) -> dict[str, Any]:
    client, topic = link.client, query.get("topic", "")
    limit = number_in(query, "limit", 50, MAX_MESSAGES)
    place, key = query.get("from", "end"), query.get("key")
    everything = range(len(client.describe_topic(topic).partitions))
    chosen = [number_in(query, "partition", 0, 1 << 31)] if query.get("partition") else list(everything)
    ends = {each: _end(link, topic, each) for each in chosen}
    if query.get("places"):
        places = _places(query["places"], ends)
    elif place == "offset":
        places = dict.fromkeys(chosen, number_in(query, "at", 0, 1 << 62))
    elif place == "time":
        at = number_in(query, "at", 0, 1 << 62)
        places = {each: _first_since(link, topic, each, at, ends[each]) for each in chosen}
    elif place == "end":
        depth = limit if key is None else SEARCHED_AT_END
        places = {each: max(_start(link, topic, each), ends[each] - depth) for each in chosen}
    else:
        places = {each: _start(link, topic, each) for each in chosen}
    found, read, is_cut = [], 0, False
    until = time.monotonic() + SEARCH_S
    stream = client.read(topic, since=places, partitions=chosen)
    for message in stream:
        read += 1
        places[message.partition] = message.offset + 1
        if key is None or (message.key or b"").decode(errors="replace") == key:
            found.append(message)
            if place != "end" and len(found) >= limit:
                is_cut = True
                break
        if time.monotonic() > until:
            is_cut = True
            break
    stream.close()
    found.sort(key=lambda each: (each.timestamp, each.partition, each.offset), reverse=place == "end")
    left = {each: ends[each] - at for each, at in places.items() if ends[each] > at} if is_cut else {}
    return {
        "messages": [shown_message(each) for each in islice(found, limit)],
        "read": read,
        "is_cut": is_cut,
        "left": sum(left.values()),
        "places": ",".join(f"{each}:{places[each]}" for each in ends) if left else "",
    }


def _places(text: str, ends: Mapping[int, int]) -> dict[int, int]:
    """Return the places that an earlier answer gave. Raises Refused."""
    try:
        found = {int(number): int(at) for number, _, at in (each.partition(":") for each in text.split(","))}
    except ValueError as error:
        raise Refused(400, "INVALID_REQUEST", f"places: {error}") from error
    if found.keys() != ends.keys() or not all(0 <= at < 1 << 62 for at in found.values()):
        raise Refused(400, "INVALID_REQUEST", f"places: {text[:50]!r} are not of these partitions")
    return found


def _start(link: BrokerLink, topic: str, partition: int) -> int:
    return link.client.list_offsets(topic, partition, "earliest").offset


def _end(link: BrokerLink, topic: str, partition: int) -> int:
    return link.client.list_offsets(topic, partition, isolation="read_committed").offset


def _first_since(link: BrokerLink, topic: str, partition: int, at_ms: int, end: int) -> int:
    found = link.client.list_offsets(topic, partition, at_ms)
    return end if found is None else found.offset


def publish(link: BrokerLink, body: PublishBody) -> dict[str, Any]:
    value: Any = body.value.encode()
    try:
        if body.format == "json":
            value = msgspec.json.decode(body.value)
        elif body.format == "hex":
            value = bytes.fromhex(body.value)
    except ValueError as error:
        raise Refused(400, "INVALID_REQUEST", f"value: {error}") from error
    found = link.client.publish(
        body.topic, value, key=body.key, headers=body.headers or None, partition=body.partition
    )
    return {"partition": found.partition, "offset": found.offset}


_tails = anyio.CapacityLimiter(MAX_TAILS)


async def tail(request: Request) -> Response:
    """Stream messages as they arrive: of a busy topic the last of each moment, with the number of the others."""
    client, topic = session_of(request).link.client, request.query_params.get("topic", "")
    description = await to_thread.run_sync(client.describe_topic, topic)
    chosen = request.query_params.get("partition", "")
    count = len(description.partitions)
    numbers = [number_in(request.query_params, "partition", 0, count)] if chosen else range(count)
    if _tails.available_tokens < 1:
        raise Refused(503, "OVERLOADED", "too many pages follow messages")
    consumer = client.consumer(
        partitions=[(topic, number) for number in numbers], auto_offset_reset="latest", prefetch_bytes=1 << 20
    )
    return StreamingResponse(_events(consumer), headers=EVENTS)


async def _events(consumer: Consumer) -> AsyncIterator[bytes]:
    async with _tails:
        try:
            yield b": following\n\n"
            while True:
                found = await to_thread.run_sync(consumer.poll, 1.0)
                if not found:
                    yield b": still here\n\n"
                    continue
                shown = [shown_message(each) for each in found[-TAIL_MESSAGES:]]
                news = {"messages": shown, "skipped": len(found) - len(shown)}
                yield b"data: " + msgspec.json.encode(news) + b"\n\n"
                await anyio.sleep(TAIL_S)
        except PlanariaError as error:
            yield b"data: " + msgspec.json.encode({"error": failure_of(error)}) + b"\n\n"
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(consumer.close)


ROUTES = [
    Route("/api/messages", reads(messages)),
    Route("/api/messages/tail", tail),
    Route("/api/messages/publish", acts(PublishBody, publish), methods=["POST"]),
]
