"""Quotas by client id: decided, stored in the catalog, sent with it to the gateway, and to partitions. Pure."""

from ipaddress import ip_address

import msgspec

from ...transport.addresses import Address
from ...transport.machine import Cast, Reply, Sender
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from ...transport.protocol.quotas import (
    ADDRESS_PREFIX,
    DEFAULT_ADDRESS,
    DEFAULT_CLIENT,
    RATES,
    ListQuotas,
    ListQuotasReply,
    Quota,
    QuotasInForce,
    RemoveQuota,
    SetQuota,
)
from .decisions import Decisions, FollowUp
from .effects import Effect
from .peers import Peers

MAX_QUOTAS = 10_000


class Quotas:
    def __init__(self, decisions: Decisions, peers: Peers, *, is_restarted: bool = False) -> None:
        self._decisions = decisions
        self._peers = peers
        self._is_restarted = is_restarted

    def on_request(self, sender: Sender, request: SetQuota | RemoveQuota | ListQuotas) -> list[Effect]:
        match request:
            case SetQuota():
                return self.on_set(sender, request)
            case RemoveQuota():
                return self.on_remove(sender, request)
            case ListQuotas():
                return self.on_list(sender)

    def on_set(self, sender: Sender, request: SetQuota) -> list[Effect]:
        latest = self._decisions.latest
        fields = {field: getattr(request.quota, field) for field in request.quota.__struct_fields__}
        chosen = {field: value for field, value in fields.items() if value is not msgspec.UNSET}
        if not chosen:
            raise ProtocolError(ErrorCode.INVALID_CONFIG, "quota: it names no limit")
        for field, rate in chosen.items():
            if rate == 0:
                unit = " a second" if field in RATES else ""
                message = f"quota.{field}: at least 1{unit}, or -1 for no limit"
                raise ProtocolError(ErrorCode.INVALID_CONFIG, message)
            if field in RATES and request.client_id.startswith(ADDRESS_PREFIX):
                message = f"quota.{field}: an address has limits of connections and requests_in_flight only"
                raise ProtocolError(ErrorCode.INVALID_CONFIG, message)
        if request.client_id.startswith(ADDRESS_PREFIX) and request.client_id != DEFAULT_ADDRESS:
            _check_address(request.client_id.removeprefix(ADDRESS_PREFIX))
        known = latest.quotas.get(request.client_id)
        if known is None and len(latest.quotas) >= MAX_QUOTAS:
            raise ProtocolError(ErrorCode.INVALID_CONFIG, f"a broker has at most {MAX_QUOTAS} quotas")
        quota = msgspec.structs.replace(known or Quota(), **chosen)
        catalog = latest.with_quota(request.client_id, quota)
        return self._decisions.decide(catalog, FollowUp("quota_changed", request.client_id, sender))

    def on_remove(self, sender: Sender, request: RemoveQuota) -> list[Effect]:
        latest = self._decisions.latest
        if request.client_id not in latest.quotas:
            message = f"client_id: {request.client_id!r} has no quota"
            raise ProtocolError(ErrorCode.UNKNOWN_QUOTA, message)
        catalog = latest.without_quota(request.client_id)
        return self._decisions.decide(catalog, FollowUp("quota_changed", request.client_id, sender))

    def on_list(self, sender: Sender) -> list[Effect]:
        return [Reply(sender, ListQuotasReply(quotas=dict(sorted(self._decisions.durable.quotas.items()))))]

    def apply_changed(self, follow_up: FollowUp) -> list[Effect]:
        order = self._in_force()
        told: list[Effect] = [
            Cast(address, order) for address in self._peers.all_up() if address.topic is not None
        ]
        return told if follow_up.sender is None else [*told, Reply(follow_up.sender, Done())]

    def on_up(self, address: Address) -> list[Effect]:
        """Send the quotas to a partition that has just started, or may not know that the last one was removed."""
        if address.topic is None or not (self._decisions.durable.quotas or self._is_restarted):
            return []
        return [Cast(address, self._in_force())]

    def _in_force(self) -> QuotasInForce:
        quotas = self._decisions.durable.quotas
        named = {client: quota.is_limit for client, quota in quotas.items() if client != DEFAULT_CLIENT}
        default = quotas.get(DEFAULT_CLIENT)
        return QuotasInForce(
            clients=frozenset(client for client, is_limit in named.items() if is_limit),
            exempt=frozenset(client for client, is_limit in named.items() if not is_limit),
            default=default is not None and default.is_limit,
        )


def _check_address(text: str) -> None:
    try:
        is_canonical = str(ip_address(text)) == text
    except ValueError:
        is_canonical = False
    if not is_canonical:
        message = f"client_id: {ADDRESS_PREFIX} needs an IP address as the broker shows it, or default, not {text!r}"
        raise ProtocolError(ErrorCode.INVALID_CONFIG, message)
