"""Compares passwords with their hashes in a thread of its own: one comparison takes 50 ms."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from ...transport.security.credentials import is_password
from .greetings import CheckPassword, PasswordChecked


class PasswordChecks:
    def __init__(self) -> None:
        self.descriptor, self._writer = os.pipe()
        """Readable when a check has ended."""
        os.set_blocking(self.descriptor, False)
        self._ended: deque[PasswordChecked] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planaria-passwords")

    def start(self, check: CheckPassword) -> None:
        self._thread.submit(self._check, check)

    def ended(self) -> list[PasswordChecked]:
        """Return the checks that have ended since the last call."""
        os.read(self.descriptor, 4_096)
        found = []
        while self._ended:
            found.append(self._ended.popleft())
        return found

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        os.close(self.descriptor)
        os.close(self._writer)

    def _check(self, check: CheckPassword) -> None:
        is_right = is_password(check.record, check.password)
        self._ended.append(PasswordChecked(check.number, check.record, is_right))
        os.write(self._writer, b"1")
