"""Answers of the pages of work in progress: records in flight, delayed messages, transactions, quotas."""

import time
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct
from starlette.datastructures import QueryParams
from starlette.routing import Route

from ...transport.addresses import Address
from ...transport.client.errors import UnknownGroup
from .answers import acts, number_in, reads
from .broker_link import BrokerLink

MAX_RECORDS = 1_000


class ScheduledBody(Struct, forbid_unknown_fields=True):
    scheduled_id: str


class QuotaBody(Struct, forbid_unknown_fields=True):
    client_id: str
    quota: dict[str, int] | None
    """None: remove it. -1: no limit."""


def in_flight(link: BrokerLink, _: QueryParams) -> dict[str, Any]:
    """Answer with the records that hosted handlers and members of work queues have, and those that wait for a retry."""
    records: list[dict[str, Any]] = []
    retrying: list[dict[str, Any]] = []
    shares = []
    for actor in link.status().actors:
        address = Address.parse(actor.address)
        who = {"group": address.group, "member": actor.address, "pid": actor.pid}
        records += [who | msgspec.structs.asdict(each) for each in actor.in_flight]
        retrying += [who | msgspec.structs.asdict(each) for each in actor.retrying.records]
        if address.kind == "coordinator" and actor.state == "ready":
            shares.append(address.name)
    for group in shares:
        with suppress(UnknownGroup):
            found = link.client.describe_group(group).share
            for part in found.partitions if found is not None else ():
                for held in part.held:
                    records.append(
                        {
                            "group": group,
                            "member": held.member_id,
                            "pid": None,
                            "topic": part.topic,
                            "partition": part.partition,
                            "offset": held.first_offset,
                            "last_offset": held.last_offset,
                            "attempt": held.delivery_count,
                            "since_ms": held.since_ms,
                        }
                    )
    records.sort(key=lambda each: each["since_ms"])
    return {"records": records[:MAX_RECORDS], "retrying": retrying[:MAX_RECORDS], "now_ms": _now_ms()}


def delayed(link: BrokerLink, query: QueryParams) -> dict[str, Any]:
    limit = number_in(query, "limit", 200, MAX_RECORDS)
    found = link.client.list_scheduled(query.get("topic") or None, limit)
    return {
        "messages": [{**msgspec.structs.asdict(each), "key": None} for each in found],
        "is_cut": len(found) == limit,
        "now_ms": _now_ms(),
    }


def cancel(link: BrokerLink, body: ScheduledBody) -> None:
    link.client.cancel_scheduled(body.scheduled_id)


def transactions(link: BrokerLink, _: QueryParams) -> dict[str, Any]:
    return {"transactions": link.client.list_transactions(), "now_ms": _now_ms()}


def quotas(link: BrokerLink, _: QueryParams) -> dict[str, Any]:
    found = link.client.list_quotas()
    return {"quotas": [{"client_id": name, **msgspec.structs.asdict(each)} for name, each in found.items()]}


def set_quota(link: BrokerLink, body: QuotaBody) -> None:
    if body.quota is None:
        link.client.remove_quota(body.client_id)
    else:
        link.client.set_quota(body.client_id, **body.quota)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


ROUTES = [
    Route("/api/in-flight", reads(in_flight)),
    Route("/api/delayed", reads(delayed)),
    Route("/api/delayed/cancel", acts(ScheduledBody, cancel), methods=["POST"]),
    Route("/api/transactions", reads(transactions)),
    Route("/api/quotas", reads(quotas)),
    Route("/api/quota", acts(QuotaBody, set_quota), methods=["POST"]),
]
