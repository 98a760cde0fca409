"""Bounds the requests that the bridge has at the gateway at once, so that other clients' requests do not wait behind all
that arrive over HTTP. Pure.

    begun     MAX_BEGUN at most
    waiting   in a queue for each address of a client; the addresses take turns
    overdue   after PATIENCE_MS begun beside the others: those wait for a partition, or the gateway is away

A request that waits for records or for members is not counted. Called by bridge.py.
"""

MAX_BEGUN = 32
"""The gateway needs about 5 ms for so many. Acknowledged after 20 ms they are 1,600 a second, about the most that
this process passes on."""
PATIENCE_MS = 500


class Window:
    def __init__(self) -> None:
        self._begun: set[int] = set()
        self._waiting: dict[str, dict[int, int]] = {}
        """By address, in the order of their turns: the requests, with the times of their arrival."""

    def enter(self, number: int, host: str, now: int) -> bool:
        """Return True if the request may be begun; otherwise it waits."""
        if len(self._begun) < MAX_BEGUN:
            self._begun.add(number)
            return True
        self._waiting.setdefault(host, {})[number] = now
        return False

    def leave(self, number: int, host: str) -> None:
        """Forget a request that has its answer, or whose client has gone."""
        self._begun.discard(number)
        self._take(number, host)

    def next(self) -> int | None:
        """Return a request that may be begun now."""
        if len(self._begun) >= MAX_BEGUN or not self._waiting:
            return None
        host, queue = next(iter(self._waiting.items()))
        number = next(iter(queue))
        self._take(number, host)
        if queue:
            self._waiting[host] = self._waiting.pop(host)
        self._begun.add(number)
        return number

    def overdue(self, now: int) -> list[int]:
        """Return requests that are to be begun because they have waited for too long."""
        late = [
            (number, host)
            for host, queue in self._waiting.items()
            for number, arrived_at in queue.items()
            if now - arrived_at >= PATIENCE_MS
        ]
        for number, host in late:
            self._take(number, host)
            self._begun.add(number)
        return [number for number, _ in late]

    def _take(self, number: int, host: str) -> None:
        """Remove a request from its queue, if it is in one."""
        queue = self._waiting.get(host)
        if queue is not None and queue.pop(number, None) is not None and not queue:
            del self._waiting[host]
