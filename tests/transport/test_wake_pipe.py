"""A pipe that wakes a poll: late wakes and closes never reach a file that has the number of a closed descriptor."""

import os
import select
import threading

import pytest

from planaria.transport.wake_pipe import WakePipe


def is_readable(pipe: WakePipe) -> bool:
    return bool(select.select([pipe], [], [], 0)[0])


def test_a_wake_is_seen_until_it_is_cleared() -> None:
    pipe = WakePipe()
    assert not is_readable(pipe)
    for _ in range(100_000):  # more than the pipe holds
        pipe.wake()
    assert is_readable(pipe)
    while is_readable(pipe):
        pipe.clear()
    pipe.close()


def test_late_wakes_and_closes_leave_files_alone_that_have_the_numbers_of_closed_descriptors() -> None:
    pipe = WakePipe()
    ours = pipe.fileno()
    pipe.close()
    reader, writer = os.pipe()  # the lowest free numbers, those of the pipe
    assert ours in (reader, writer)
    os.set_blocking(reader, False)
    pipe.wake()
    pipe.close()
    pipe.on_fork()
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    os.write(writer, b"x")
    assert os.read(reader, 10) == b"x"
    os.close(reader)
    os.close(writer)


def test_a_close_while_a_thread_writes_is_completed_by_that_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = WakePipe()
    write, closed = os.write, []

    def closed_meanwhile(descriptor: int, data: bytes) -> int:
        pipe.close()  # by a signal handler or another thread
        os.fstat(descriptor)  # raises if it is closed
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", closed_meanwhile)
    monkeypatch.setattr(os, "close", closed.append)
    pipe.wake()
    monkeypatch.undo()
    assert len(closed) == len(set(closed)) == 2
    for descriptor in closed:
        os.close(descriptor)


def test_a_fork_in_the_middle_of_another_threads_wake_closes_the_childs_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = WakePipe()
    is_inside, may_go = threading.Event(), threading.Event()
    write = os.write

    def slow(descriptor: int, data: bytes) -> int:
        is_inside.set()
        assert may_go.wait(60)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", slow)
    thread = threading.Thread(target=pipe.wake)
    thread.start()
    assert is_inside.wait(60)
    pid = os.fork()
    if pid == 0:
        pipe.on_fork()
        try:
            os.fstat(pipe.fileno())
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    may_go.set()
    thread.join()
    assert is_readable(pipe)
    pipe.close()
