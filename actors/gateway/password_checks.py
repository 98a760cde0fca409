"""Compares passwords with their hashes in a thread of its own: one comparison takes 50 ms."""

from concurrent.futures import ThreadPoolExecutor

from ...transport.event_queue import EventQueue
from ...transport.security.credentials import is_password
from .greetings import CheckPassword, PasswordChecked


class PasswordChecks:
    def __init__(self) -> None:
        self._ended: EventQueue[PasswordChecked] = EventQueue()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planaria-passwords")

    def fileno(self) -> int:
        """Return the descriptor that is readable when a check has ended."""
        return self._ended.fileno()

    def start(self, check: CheckPassword) -> None:
        self._thread.submit(self._check, check)

    def ended(self) -> list[PasswordChecked]:
        """Return the checks that have ended since the last call."""
        return self._ended.take()

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._ended.close()

    def _check(self, check: CheckPassword) -> None:
        is_right = is_password(check.record, check.password)
        self._ended.post(PasswordChecked(check.number, check.record, is_right))
