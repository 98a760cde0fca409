"""The watch of an actor over its supervisor: without a supervisor that answers, its node cannot start anything. Pure.

    state        means                                            left by
    answered     every heartbeat so far has been answered         heartbeat -> asked
    asked        one is unanswered, since some time               answer -> answered; that time is over the limit -> the
                                                                  supervisor hangs

Only for actors by which others reach a node of a cluster (`Actor.needs_supervisor`): its controller, its link, its
gateway. They end when the supervisor hangs, as all actors do when it has died. Then the other nodes and the clients take
the node for failed, and a supervisor that continues finds them dead and starts them again.

- Called by the loop, with each heartbeat at the end of a turn, for which it has read its control link. Those within a
  long turn, which report progress, ask for no answer.
- The limit is that of the supervisor for its actors, `hang_timeout_ms`.
- A heartbeat that comes late shows that this process did not run itself (it was stopped, the machine is busy): nothing
  can be said of the supervisor then, and the time starts over, as in the supervisor's own check for hangs.
"""


class SupervisorWatch:
    def __init__(self, limit_ms: int, interval_ms: int) -> None:
        """`interval_ms` is the time between two heartbeats."""
        self._limit_ms = limit_ms
        self._interval_ms = interval_ms
        self._unanswered_since: int | None = None
        self._beat_at: int | None = None

    def on_heartbeat(self, now: int) -> bool:
        """Note a heartbeat that is to be answered. Return True if the supervisor hangs."""
        was_away = self._beat_at is not None and now - self._beat_at > 2 * self._interval_ms
        self._beat_at = now
        if self._unanswered_since is None or was_away:
            self._unanswered_since = now
        return now - self._unanswered_since >= self._limit_ms

    def on_answer(self) -> None:
        self._unanswered_since = None
