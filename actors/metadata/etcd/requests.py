"""Requests to etcd and their outcomes, without their JSON (`encoding.py`). Pure.

Keys are whole keys of etcd, with the cluster's prefix. Every request has one outcome: its reply, a Refusal (etcd has
answered with an error and has done nothing), or Silence (whether it was carried out is unknown).
"""

from typing import TypeAlias

from msgspec import Struct


class Range(Struct, frozen=True):
    """Read the keys from `key` up to `end`, or `key` alone. Linearizable: it sees everything that was answered before."""

    key: bytes
    end: bytes = b""
    limit: int = 0
    """Maximum number of pairs; 0: all."""
    revision: int = 0
    """The revision to read at; 0: the newest."""
    modified_since: int = 0
    """Return only pairs modified at this revision or later; `count` is of all."""


class Compare(Struct, frozen=True):
    key: bytes
    revision: int
    """0: the key does not exist."""
    of_creation: bool = False


class Write(Struct, frozen=True):
    key: bytes
    value: bytes | None
    """None deletes the key."""
    lease: int = 0


class Transact(Struct, frozen=True):
    """Make all writes if all compares hold; read keys otherwise."""

    compares: tuple[Compare, ...]
    writes: tuple[Write, ...]
    otherwise: tuple[bytes, ...] = ()


class GrantLease(Struct, frozen=True):
    ttl_s: int


class KeepLease(Struct, frozen=True):
    lease: int


class RevokeLease(Struct, frozen=True):
    lease: int


class Authenticate(Struct, frozen=True):
    user: str
    password: str


Request: TypeAlias = Range | Transact | GrantLease | KeepLease | RevokeLease | Authenticate


class Pair(Struct, frozen=True):
    key: bytes
    value: bytes
    created: int
    modified: int
    lease: int = 0


class Found(Struct, frozen=True):
    """The answer to a Range."""

    revision: int
    cluster_id: int
    pairs: tuple[Pair, ...]
    count: int
    """The number of keys in the range, whatever limits the pairs."""
    has_more: bool = False


class Transacted(Struct, frozen=True):
    revision: int
    is_done: bool
    found: tuple[Pair, ...] = ()
    """The pairs of `otherwise` that exist."""


class Lease(Struct, frozen=True):
    """The answer to GrantLease and KeepLease. `ttl_s` is 0 if the lease is gone."""

    lease: int
    ttl_s: int


class Token(Struct, frozen=True):
    token: str


class Done(Struct, frozen=True):
    pass


Reply: TypeAlias = Found | Transacted | Lease | Token | Done


class Refusal(Struct, frozen=True):
    code: int
    """A gRPC status code."""
    message: str


class Silence(Struct, frozen=True):
    reason: str
    was_sent: bool = True
    """False if no byte of the request can have reached etcd."""


Outcome: TypeAlias = Reply | Refusal | Silence


class WatchBegan(Struct, frozen=True):
    pass


class WatchEvent(Struct, frozen=True):
    key: bytes
    value: bytes | None
    """None: the key was deleted."""
    revision: int
    lease: int = 0


class WatchEvents(Struct, frozen=True):
    events: tuple[WatchEvent, ...]


class WatchEnded(Struct, frozen=True):
    reason: str
    is_compacted: bool = False
    """True if etcd no longer has the revision from which the watch was to start."""


WatchMessage: TypeAlias = WatchBegan | WatchEvents | WatchEnded


# gRPC status codes.
INVALID_ARGUMENT = 3
NOT_FOUND = 5
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
OUT_OF_RANGE = 11
UNAUTHENTICATED = 16
UNCERTAIN = frozenset({1, 2, 4, 10, 13, 14})
"""Cancelled, unknown, too late, aborted, internal, unavailable: the request may have been carried out."""
