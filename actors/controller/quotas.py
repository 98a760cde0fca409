"""Quotas by client id: decided, kept in the catalog, told to the gateway with it. Pure."""

import msgspec

from ...transport.machine import Effect, Reply, Sender
from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.message import Done
from ...transport.protocol.quotas import ListQuotasReply, Quota, RemoveQuota, SetQuota
from .decisions import Consequence, Decisions

MAX_QUOTAS = 10_000


class Quotas:
    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions

    def on_set(self, asker: Sender, request: SetQuota) -> list[Effect]:
        latest = self._decisions.latest
        fields = {field: getattr(request.quota, field) for field in request.quota.__struct_fields__}
        chosen = {field: value for field, value in fields.items() if value is not msgspec.UNSET}
        if not chosen:
            raise ProtocolError(ErrorCode.INVALID_CONFIG, "quota: it names no limit")
        for field, rate in chosen.items():
            if rate == 0:
                message = f"quota.{field}: at least 1 a second, or -1 for no limit"
                raise ProtocolError(ErrorCode.INVALID_CONFIG, message)
        known = latest.quotas.get(request.client_id)
        if known is None and len(latest.quotas) >= MAX_QUOTAS:
            raise ProtocolError(ErrorCode.INVALID_CONFIG, f"a broker keeps at most {MAX_QUOTAS} quotas")
        quota = msgspec.structs.replace(known or Quota(), **chosen)
        catalog = latest.with_quota(request.client_id, quota)
        return self._decisions.decide(catalog, Consequence("quota_changed", request.client_id, asker))

    def on_remove(self, asker: Sender, request: RemoveQuota) -> list[Effect]:
        latest = self._decisions.latest
        if request.client_id not in latest.quotas:
            message = f"client_id: {request.client_id!r} has no quota"
            raise ProtocolError(ErrorCode.UNKNOWN_QUOTA, message)
        catalog = latest.without_quota(request.client_id)
        return self._decisions.decide(catalog, Consequence("quota_changed", request.client_id, asker))

    def on_list(self, asker: Sender) -> list[Effect]:
        return [Reply(asker, ListQuotasReply(quotas=dict(sorted(self._decisions.durable.quotas.items()))))]

    def apply_changed(self, consequence: Consequence) -> list[Effect]:
        return [] if consequence.asker is None else [Reply(consequence.asker, Done())]
