"""Compares passwords with their hashes in a thread of its own: one comparison takes 50 ms."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

from ...transport.security.credentials import is_password
from ...transport.wake_pipe import WakePipe
from .greetings import CheckPassword, PasswordChecked


class PasswordChecks:
    def __init__(self) -> None:
        self._wakes = WakePipe()
        self._ended: deque[PasswordChecked] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planaria-passwords")

    def fileno(self) -> int:
        """Return the descriptor that is readable when a check has ended."""
        return self._wakes.fileno()

    def start(self, check: CheckPassword) -> None:
        self._thread.submit(self._check, check)

    def ended(self) -> list[PasswordChecked]:
        """Return the checks that have ended since the last call."""
        self._wakes.clear()
        found = []
        while self._ended:
            found.append(self._ended.popleft())
        return found

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._wakes.close()

    def _check(self, check: CheckPassword) -> None:
        is_right = is_password(check.record, check.password)
        self._ended.append(PasswordChecked(check.number, check.record, is_right))
        self._wakes.wake()
