"""The quota API group, answered by the controller: limits on each client id's produce and fetch rates.

set_quota(client_id, quota)       -> done        omitted fields keep their value; -1 removes a limit
remove_quota(client_id)           -> done        UNKNOWN_QUOTA if there is none
list_quotas()                     -> quotas by client id

A client names itself by `client_id` in `hello`. The quota of DEFAULT_CLIENT applies separately to every client id without
its own; connections without a name share one. The gateway enforces them: it delays a request until there is room, and
reports the delay in the reply's `throttle_ms`. Clients under a quota receive no partition's own endpoint, and are
refused there if they send their name.

quotas_in_force(clients, exempt, default)     no reply; the controller sends it to every partition
"""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from .message import InternalRequest, Reply, Request

DEFAULT_CLIENT = "default"
ClientId = Annotated[str, Meta(min_length=1, max_length=256)]
Rate = Annotated[int, Meta(ge=-1, le=2**53)]
"""Per second; -1: no limit."""


class Quota(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    produce_bytes: Rate = -1
    """Applies to `produce` and `publish`, header and payload."""
    fetch_bytes: Rate = -1
    """Applies to the replies to `fetch`."""
    produce_requests: Rate = -1
    fetch_requests: Rate = -1

    @property
    def is_limit(self) -> bool:
        rates = (self.produce_bytes, self.fetch_bytes, self.produce_requests, self.fetch_requests)
        return any(rate >= 0 for rate in rates)


class QuotaChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of Quota to change; omitted fields keep their value."""

    produce_bytes: Rate | UnsetType = UNSET
    fetch_bytes: Rate | UnsetType = UNSET
    produce_requests: Rate | UnsetType = UNSET
    fetch_requests: Rate | UnsetType = UNSET


class SetQuota(Request, tag="set_quota", frozen=True):
    client_id: ClientId
    quota: QuotaChange


class RemoveQuota(Request, tag="remove_quota", frozen=True):
    client_id: ClientId


class ListQuotas(Request, tag="list_quotas", frozen=True):
    pass


class ListQuotasReply(Reply):
    quotas: dict[str, Quota]


class QuotasInForce(InternalRequest, tag="quotas_in_force", frozen=True):
    """The clients that must use the gateway."""

    clients: frozenset[str] = frozenset()
    exempt: frozenset[str] = frozenset()
    """Clients that the default quota does not bind, because their own quota has no limit."""
    default: bool = False
    """True if all other clients must use it, too."""

    def limits(self, client_id: str) -> bool:
        return client_id in self.clients or (self.default and client_id not in self.exempt)
