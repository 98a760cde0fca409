"""The quota dialog, answered by the controller: how much each client id may produce and fetch.

set_quota(client_id, quota)       -> done        what is left out stays as it was; -1 takes a limit away
remove_quota(client_id)           -> done        UNKNOWN_QUOTA when there is none
list_quotas()                     -> quotas by client id

A client names itself by `client_id` in `hello`. The quota of DEFAULT_CLIENT is that of every client id without one of
its own, each by itself; connections that gave no name share one. The gateway keeps them: it holds a request back until
there is room, and says so in the reply's `throttle_ms`. Clients under a quota are told no partition's own endpoint, and
refused there if they name themselves.

quotas_in_force(clients, exempt, default)     no answer; the controller tells every partition
"""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from .message import Reply, Request

DEFAULT_CLIENT = "default"
ClientId = Annotated[str, Meta(min_length=1, max_length=256)]
Rate = Annotated[int, Meta(ge=-1, le=2**53)]
"""A second; -1: no limit."""


class Quota(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    produce_bytes: Rate = -1
    """Of `produce` and `publish`, header and payload."""
    fetch_bytes: Rate = -1
    """Of the replies to `fetch`."""
    produce_requests: Rate = -1
    fetch_requests: Rate = -1

    @property
    def is_limit(self) -> bool:
        rates = (self.produce_bytes, self.fetch_bytes, self.produce_requests, self.fetch_requests)
        return any(rate >= 0 for rate in rates)


class QuotaChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of Quota to change; what is left out stays."""

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


class QuotasInForce(Request, tag="quotas_in_force", frozen=True):
    """Who must go through the gateway."""

    clients: frozenset[str] = frozenset()
    exempt: frozenset[str] = frozenset()
    """Of the default quota, by one of their own without a limit."""
    default: bool = False
    """Whether all others must, too."""

    def limits(self, client_id: str) -> bool:
        return client_id in self.clients or (self.default and client_id not in self.exempt)
