"""The rate at which a mirror reads from its source. Pure; shared by the copies of one mirror."""


class Rate:
    def __init__(self, bytes_per_second: int) -> None:
        """Take -1 for no limit."""
        self._bytes_per_second = bytes_per_second
        self._free_at = 0.0

    def free_at(self, now: int) -> int:
        """Return the time from which on the next fetch may leave."""
        return max(now, int(self._free_at))

    def take(self, size_bytes: int, now: int) -> None:
        """Count the bytes of an answer: its size is known only afterwards, so later fetches wait for it."""
        if self._bytes_per_second > 0:
            self._free_at = max(self._free_at, now) + size_bytes * 1_000 / self._bytes_per_second
