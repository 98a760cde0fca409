"""Refusals by a lack of credentials or rights, counted over windows, so that a flood of them is few records. Pure.

    first refusal            opens a window of WINDOW_MS
    end of the window        one record for each principal, operation, resource and code

A window has at most MAX_KINDS records: a principal has MAX_KINDS_OF_PRINCIPAL of them, beyond which its resources are
counted as `*`; when all are taken, further principals are counted as `*`. A connection without a principal chooses its
resources freely, so these are counted without.
"""

from msgspec import Struct

from ...transport.audit_record import AuditRecord

WINDOW_MS = 5_000
MAX_KINDS = 200
MAX_KINDS_OF_PRINCIPAL = 20
MANY = "*"


class Refusal(Struct, frozen=True):
    """One kind of refusal."""

    principal: str
    op: str
    resource: str
    code: str


class _Count(Struct):
    first_ms: int
    last_ms: int = 0
    number: int = 0
    address: str = ""


class Refusals:
    def __init__(self) -> None:
        self._counts: dict[Refusal, _Count] = {}
        self._kinds: dict[str, int] = {}

    def count(self, refusal: Refusal, address: str, wall_ms: int) -> bool:
        """Count a refusal; return True if it opens a window."""
        is_first = not self._counts
        kind = self._kind_of(refusal)
        found = self._counts.get(kind)
        if found is None:
            found = self._counts[kind] = _Count(wall_ms)
            self._kinds[kind.principal] = self._kinds.get(kind.principal, 0) + 1
        found.number += 1
        found.last_ms, found.address = wall_ms, address
        return is_first

    def take(self) -> list[AuditRecord]:
        """End the window and return its records, without ids."""
        counts, self._counts, self._kinds = self._counts, {}, {}
        return [
            AuditRecord(
                id="",
                time_ms=count.last_ms,
                outcome="refused",
                op=kind.op,
                resource=kind.resource,
                principal=kind.principal,
                address=count.address,
                error=kind.code,
                count=count.number,
                first_ms=count.first_ms,
            )
            for kind, count in self._counts_in_order(counts)
        ]

    @staticmethod
    def _counts_in_order(counts: dict[Refusal, _Count]) -> list[tuple[Refusal, _Count]]:
        return sorted(counts.items(), key=lambda each: each[1].first_ms)

    def _kind_of(self, refusal: Refusal) -> Refusal:
        if not refusal.principal:
            refusal = Refusal("", refusal.op, "", refusal.code)
        if refusal in self._counts:
            return refusal
        if self._kinds.get(refusal.principal, 0) >= MAX_KINDS_OF_PRINCIPAL:
            refusal = Refusal(refusal.principal, MANY, MANY, refusal.code)
        if len(self._counts) >= MAX_KINDS and refusal not in self._counts:
            refusal = Refusal(MANY, MANY, MANY, refusal.code)
        return refusal
