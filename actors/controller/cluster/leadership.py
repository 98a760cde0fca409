"""Which controller leads: the one whose entry the store has under `controller`. Pure. Every node's controller runs it.

    state       entry in the store                      left by
    following   none, or another node's                 none, or its node suspected -> the entry is proposed: taking
    taking      a proposal is open                      entry of this start -> leading; any other outcome -> following
    leading     this start's, at `revision`             entry gone or another's, session lost -> following
                                                        entry of an earlier process of this start -> leading, and taking

- An entry is proposed with a guard: that there is none, or that it is still the one of the suspected node. So of several
  controllers that try, one succeeds.
- Every write of a leading controller is guarded by the revision of its entry (`guard_revision`). A controller that has
  been replaced without noticing, because its process was frozen, writes nothing any more.
- The entry is bound to the session, so it disappears with it. Each process of the controller has a session of its own, so
  one that starts again writes the entry again, or it would disappear with the session of the process before. The early
  replacement on suspicion only saves the time until then.
"""

from msgspec import Struct

from .records import Leader


class Present(Struct, frozen=True):
    """The entry in the store, and the revision of its last change."""

    entry: Leader
    revision: int


class Take(Struct, frozen=True):
    """Write `entry` if the present one still has this revision; None: if there is none."""

    entry: Leader
    expected: int | None


class Leadership:
    """The part of one controller."""

    def __init__(self, node: str, start_id: str) -> None:
        self._own = Leader(node, start_id)
        self._present: Present | None = None
        self._is_in_session = False
        self._is_open = False
        self._is_bound = False
        """True once an entry is bound to the present session."""
        self._is_ending = False

    @property
    def guard_revision(self) -> int | None:
        """The revision that guards the writes of this controller; None while it does not lead."""
        if self._present is None or not self._is_in_session or self._present.entry != self._own:
            return None
        return self._present.revision

    @property
    def is_leading(self) -> bool:
        return self.guard_revision is not None

    @property
    def leader(self) -> str | None:
        """The node whose controller leads; None if there is none."""
        return None if self._present is None else self._present.entry.node

    def on_entry(self, present: Present | None) -> None:
        self._present = present

    def on_session(self, *, is_alive: bool) -> None:
        self._is_in_session = is_alive
        self._is_bound = self._is_bound and is_alive

    def on_taken(self, *, is_applied: bool) -> None:
        """Take the outcome of a `Take`: the entry in the store decides who leads."""
        self._is_open = False
        self._is_bound = is_applied

    def end(self) -> int | None:
        """Give up for good, and return the revision at which to delete the entry; None if it is not this one's."""
        revision = self.guard_revision
        self._is_ending = True
        return revision

    def decide(self, suspected: frozenset[str]) -> Take | None:
        """Return the step that is due."""
        if not self._is_in_session or self._is_open or self._is_ending:
            return None
        if self._present is None:
            return self._take(None)
        holder = self._present.entry
        is_own = holder.node == self._own.node
        is_unbound = is_own and (holder.start_id != self._own.start_id or not self._is_bound)
        if is_unbound or holder.node in suspected:
            return self._take(self._present.revision)
        return None

    def _take(self, expected: int | None) -> Take:
        self._is_open = True
        return Take(self._own, expected)
