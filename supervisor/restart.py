"""Restart decisions for a dead child: intensity, backoff, quarantine.

OTP counts restarts per supervisor and gives up the supervisor; here they are counted per child, and the child is given
up, until an operator or a slow retry revives it. So a crashing partition does not spend the budget of others.
Two kinds of death are no sign of a fault and do not count: one ordered by an operator, and one that the next
incarnation accounts for (a hosted subscriber knows which record's handler ended it, and limits its attempts).
Called by machine.py on each death. Pure: the jitter is a parameter.
"""

from msgspec import Struct


class RestartPolicy(Struct, frozen=True, kw_only=True):
    """At most `intensity` restarts in `period_ms`; each waits longer than the last until the child has stayed ready."""

    intensity: int = 5
    period_ms: int = 30_000
    backoff_ms: tuple[int, ...] = (0, 100, 400, 1_600, 6_400, 30_000)
    backoff_reset_ms: int = 1_000
    """Ready time after which a child begins with the first backoff again. Time before readiness does not count."""
    quarantine_retry_ms: int = 300_000
    """Time in quarantine before one more attempt; 0: until an operator revives the child."""


class Decision(Struct, frozen=True):
    """Delay of the restart, `delay_ms`; None: no automatic restart."""

    delay_ms: int | None
    is_quarantined: bool


class RestartHistory:
    """The restarts of one child."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self.forgive()

    def forgive(self) -> None:
        """Reset the history: an operator has revived the child."""
        self._restarts: list[int] = []
        self._step = 0
        self._is_on_probation = False

    def discount(self) -> None:
        """Remove the last death, which has been accounted for."""
        if self._restarts:
            self._restarts.pop()
            self._step = max(0, self._step - 1)

    def give_up(self) -> Decision:
        """Give up: another start would fail in the same way until an operator has acted."""
        self._is_on_probation = True
        return Decision(self._policy.quarantine_retry_ms or None, is_quarantined=True)

    def decide(self, now: int, ready_for_ms: int, jitter: float, *, is_ordered: bool = False) -> Decision:
        """Decide about a death at `now` after being ready for `ready_for_ms` (0: never was); `jitter` is near 1."""
        policy = self._policy
        if is_ordered:
            return Decision(0, is_quarantined=False)
        if ready_for_ms >= policy.backoff_reset_ms:
            self._step = 0
        if ready_for_ms >= policy.period_ms:
            self._is_on_probation = False
        self._restarts = [at for at in self._restarts if at > now - policy.period_ms]
        # After quarantine there is one attempt, not `intensity` of them.
        if self._is_on_probation or len(self._restarts) >= policy.intensity:
            self._is_on_probation = True
            return Decision(policy.quarantine_retry_ms or None, is_quarantined=True)
        delay_ms = policy.backoff_ms[min(self._step, len(policy.backoff_ms) - 1)]
        self._step += 1
        self._restarts.append(now)
        return Decision(round(delay_ms * jitter), is_quarantined=False)
