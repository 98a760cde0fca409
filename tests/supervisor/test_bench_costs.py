"""The processor time of operations, as `planaria.supervisor.bench.costs` reads it."""

import os
import sys
import threading
import time

import pytest

from planaria.supervisor.bench.costs import Thread, spent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_the_time_of_a_process_is_that_of_its_threads_by_name() -> None:
    pids = {"program": os.getpid()}
    is_over = threading.Event()
    other = threading.Thread(target=is_over.wait)
    other.start()
    before = spent(pids)
    ends_at = time.thread_time() + 0.02
    while time.thread_time() < ends_at:
        pass
    after = spent(pids)
    is_over.set()
    other.join()
    own, others = Thread("program", ""), Thread("program", "other")
    assert after[own].run_us - before[own].run_us >= 10_000
    assert after[own].sleeps >= before[own].sleeps
    assert others in after
