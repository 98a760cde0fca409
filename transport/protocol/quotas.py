"""The quota API group, answered by the controller: limits on a client's rates, connections and requests in flight.

set_quota(client_id, quota)       -> done        omitted fields keep their value; -1 removes a limit
remove_quota(client_id)           -> done        UNKNOWN_QUOTA if there is none
list_quotas()                     -> quotas by client id

A client names itself by `client_id` in `hello`; with authentication its principal is its id. The quota of DEFAULT_CLIENT
applies separately to every client id without its own; connections without a name share one. `address:IP` limits the
connections and requests in flight of one address, `address:default` those of each without its own.

The gateway enforces them: it delays a request until there is room, and reports the delay in the reply's `throttle_ms`;
beyond a number of connections or of requests in flight it refuses them with THROTTLED. Clients under a quota receive no
partition's own endpoint, and are refused there if they send their name.

quotas_in_force(clients, exempt, default)     no reply; the controller sends it to every partition
"""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from .message import InternalRequest, Reply, Request

DEFAULT_CLIENT = "default"
ADDRESS_PREFIX = "address:"
DEFAULT_ADDRESS = "address:default"
RATES = ("produce_bytes", "fetch_bytes", "produce_requests", "fetch_requests")
"""Limits per second, which an address does not have."""
ClientId = Annotated[str, Meta(min_length=1, max_length=256)]
Rate = Annotated[int, Meta(ge=-1, le=2**53)]
"""Per second; -1: no limit."""
Most = Annotated[int, Meta(ge=-1, le=2**53)]
"""At a time; -1: no limit."""


class Quota(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    produce_bytes: Rate = -1
    """Applies to `produce` and `publish`, header and payload."""
    fetch_bytes: Rate = -1
    """Applies to the replies to `fetch`."""
    produce_requests: Rate = -1
    fetch_requests: Rate = -1
    connections: Most = -1
    """Open connections to one gateway."""
    requests_in_flight: Most = -1
    """Requests without an answer at one gateway, waiting polls among them."""

    @property
    def is_limit(self) -> bool:
        return any(getattr(self, field) >= 0 for field in self.__struct_fields__)


class QuotaChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of Quota to change; omitted fields keep their value."""

    produce_bytes: Rate | UnsetType = UNSET
    fetch_bytes: Rate | UnsetType = UNSET
    produce_requests: Rate | UnsetType = UNSET
    fetch_requests: Rate | UnsetType = UNSET
    connections: Most | UnsetType = UNSET
    requests_in_flight: Most | UnsetType = UNSET


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
