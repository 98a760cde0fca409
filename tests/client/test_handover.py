"""The owner of a client's socket: random interleavings of the code of all threads, line by line."""

import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from planaria.transport.client import handover as handover_module
from planaria.transport.client import turn_taking as shell
from planaria.transport.client.handover import SPELL_TICKS, Handover
from planaria.transport.client.turn_taking import TurnTaking

TRACED = {handover_module.__file__, shell.__file__}
CALLERS = 3
CALLS = 6


class Scheduler:
    """Runs one thread at a time, up to its next line of the code under test, and then another one, at random."""

    def __init__(self, seed: int, pace: float = 0.1) -> None:
        self._pace = pace
        self.random = random.Random(seed)
        self.now = 0
        self._turns: dict[threading.Thread, threading.Lock] = {}
        self._conditions: dict[threading.Thread, Callable[[], bool] | None] = {}
        self._timers: dict[threading.Thread, int] = {}
        self._back = threading.Lock()
        self._back.acquire()

    def spawn(self, work: Callable[[], None], name: str) -> threading.Thread:
        turn = threading.Lock()
        turn.acquire()

        def run() -> None:
            turn.acquire()
            sys.settrace(self._trace)
            try:
                work()
            finally:
                sys.settrace(None)
                del self._turns[thread]
                self._back.release()

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._turns[thread] = turn
        thread.start()
        return thread

    def block(self, is_ready: Callable[[], bool], timeout_ms: int | None = None) -> None:
        """Let the others run until the condition holds, or the time is over."""
        me = threading.current_thread()
        self._conditions[me] = is_ready
        if timeout_ms is not None:
            self._timers[me] = self.now + timeout_ms
        self._switch()
        self._conditions.pop(me)
        self._timers.pop(me, None)

    def run(self, between: Callable[[], bool]) -> None:
        """Run until only the network thread is left. `between` does something else; it returns False for nothing."""
        while len(self._turns) > 1:
            if self.random.random() < self._pace:
                self.now += 1
            if self.random.random() < 0.05:
                between()
            ready = [thread for thread in self._turns if self._may_run(thread)]
            if not ready:
                if between():
                    continue
                assert self._timers, f"all threads sleep: {[thread.name for thread in self._turns]}"
                self.now = min(self._timers.values())
                continue
            self._resume(self.random.choice(ready))

    def finish(self) -> None:
        while self._turns:
            ready = [thread for thread in self._turns if self._may_run(thread)]
            if ready:
                self._resume(ready[0])
            else:
                assert self._timers, "the network thread sleeps for ever"
                self.now = min(self._timers.values())

    def _may_run(self, thread: threading.Thread) -> bool:
        condition = self._conditions.get(thread)
        return condition is None or condition() or self._timers.get(thread, self.now + 1) <= self.now

    def _resume(self, thread: threading.Thread) -> None:
        self._turns[thread].release()
        self._back.acquire()

    def _switch(self) -> None:
        turn = self._turns[threading.current_thread()]
        self._back.release()
        turn.acquire()

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line":
            self._switch()
        return self._trace


class CooperativeLock:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_held = False

    def acquire(self, blocking: bool = True) -> bool:
        while self._is_held:
            if not blocking:
                return False
            self._scheduler.block(lambda: not self._is_held)
        self._is_held = True
        return True

    def release(self) -> None:
        assert self._is_held
        self._is_held = False


class Gate:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.is_open = False

    def open(self) -> None:
        assert not self.is_open
        self.is_open = True

    def wait(self, timeout_s: float | None = None) -> bool:
        self._scheduler.block(lambda: self.is_open)
        return self.is_open


class Alarm:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.is_rung = False

    def ring(self) -> None:
        self.is_rung = True

    def sleep(self, timeout_s: float) -> None:
        self._scheduler.block(lambda: self.is_rung, int(timeout_s * 1000))
        self.is_rung = False


class Calls:
    """In place of the dispatch and the poller: calls are answered some time after they were taken from the inbox."""

    def __init__(self, network: "InterleavedNetwork", scheduler: Scheduler) -> None:
        self.inbox: deque[Any] = deque()
        self.in_flight: list[Gate] = []
        self.answered: list[Gate] = []
        self.is_woken = False
        self._network = network
        self._scheduler = scheduler
        self._owner: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        return bool(self.inbox)

    @property
    def is_quiet(self) -> bool:
        return not self.inbox and not self.in_flight and not self.answered

    def wake(self) -> None:
        self.is_woken = True

    def answer(self) -> bool:
        if self.in_flight:
            self.answered.append(self.in_flight.pop(0))
            return True
        return False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        assert self._owner is None, "two threads work the socket"
        self._owner = threading.current_thread()
        yield
        self._owner = None

    def short_turn(self, now: int, is_readable: bool) -> None:
        with self._alone():
            self._scheduler.block(lambda: True)
            while self.answered and is_readable:
                gate = self.answered.pop(0)
                self._network.let_pass(gate)
                self._network.call_back(self._network.on_callback)
            for _ in range(len(self.inbox)):
                self.in_flight.append(self.inbox.popleft())

    def poll(self, timeout_ms: int | None) -> list[Any]:
        with self._alone():
            self._scheduler.block(lambda: bool(self.answered or self.is_woken), timeout_ms)
        self.is_woken = False
        return []


class InterleavedNetwork(TurnTaking):
    """The shell as it is, without a socket, under the scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.callback_threads: list[threading.Thread] = []
        self.leads = 0
        self.calls = Calls(self, scheduler)
        super().__init__(self.calls, self._sleep_and_work, self.calls.wake, lambda: scheduler.now)  # type: ignore[arg-type]
        self._alarm = Alarm(scheduler)  # type: ignore[assignment]
        self.handover = Handover(
            CooperativeLock(scheduler), self.calls.inbox, self.calls.wake, self._alarm.ring
        )
        self.handover.begin()

    def _sleep_and_work(self, until: int | None, is_short: bool) -> int:
        timeout_ms = None if until is None else max(0, until - self.scheduler.now)
        self.handover.is_asleep = True
        self.scheduler.block(lambda: True)
        self.calls.poll(0 if self.calls.is_busy else timeout_ms)
        self.handover.is_asleep = False
        self.calls.short_turn(self.scheduler.now, True)
        return self.scheduler.now

    def on_callback(self) -> None:
        self.callback_threads.append(threading.current_thread())

    def _lead_shielded(self, gate: Any, limit_ms: int) -> int:
        led_ms = super()._lead_shielded(gate, limit_ms)
        self.leads += 1
        return led_ms

    def post(self, gate: Gate, *, is_waiting: bool = False) -> None:
        self.calls.inbox.append(gate)
        self.scheduler.block(lambda: True)
        self.handover.posted(is_waiting=is_waiting)

    def call(self, waits: bool) -> None:
        gate = Gate(self.scheduler)
        self.post(gate, is_waiting=waits)
        if waits:
            assert self.wait(gate)
        else:
            self.scheduler.block(lambda: gate.is_open)


@pytest.fixture
def always_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "is_safe_here", lambda: True)  # the scheduler is a trace function


@pytest.mark.parametrize("seed", range(40))
def test_every_call_is_answered_and_one_thread_owns_the_socket(seed: int, always_safe: None) -> None:
    scheduler = Scheduler(seed)
    network = InterleavedNetwork(scheduler)
    network.thread = scheduler.spawn(network.run, "network")

    def work() -> None:
        for _ in range(CALLS):
            network.call(scheduler.random.random() < 0.8)

    callers = scheduler.random.randint(1, CALLERS)
    for number in range(callers):
        scheduler.spawn(work, f"caller {number}")
    scheduler.run(network.calls.answer)
    network.handover.stop()
    scheduler.finish()
    assert network.failure is None
    assert set(network.callback_threads) == {network.thread}
    assert len(network.callback_threads) == callers * CALLS


def test_a_thread_that_waits_again_and_again_leads(always_safe: None) -> None:
    scheduler = Scheduler(1, pace=0.002)
    network = InterleavedNetwork(scheduler)
    network.thread = scheduler.spawn(network.run, "network")

    def work() -> None:
        for _ in range(30):
            network.call(True)
            scheduler.block(lambda: network.handover.is_free, 100)

    scheduler.spawn(work, "caller")
    scheduler.run(network.calls.answer)
    network.handover.stop()
    scheduler.finish()
    assert network.leads > 5


@pytest.mark.parametrize("seed", range(10))
def test_a_close_at_any_time_ends_the_network_thread(seed: int, always_safe: None) -> None:
    scheduler = Scheduler(seed)
    network = InterleavedNetwork(scheduler)
    ended: list[bool] = []
    gates: list[Gate] = []

    def run() -> None:
        network.run()
        assert not network.handover.tick(), "another thread has the socket"
        ended.append(True)
        for gate in gates:
            if not gate.is_open:
                gate.open()

    network.thread = scheduler.spawn(run, "network")

    def work() -> None:
        for _ in range(CALLS):
            gate = Gate(scheduler)
            gates.append(gate)
            if ended:
                return
            network.post(gate, is_waiting=True)
            network.wait(gate)

    scheduler.spawn(work, "caller")
    left = scheduler.random.randint(1, 60)

    def between() -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            network.handover.stop()
        return network.calls.answer() or left >= 0

    scheduler.run(between)
    network.handover.stop()
    scheduler.finish()
    assert ended == [True]


class TestStates:
    """The table of the module, without threads."""

    def setup_method(self) -> None:
        self.inbox: list[int] = []
        self.woken: list[str] = []
        self.handover = Handover(
            threading.Lock(),
            self.inbox,
            lambda: self.woken.append("owner"),
            lambda: self.woken.append("network"),
        )
        self.handover.begin()

    def test_nobody_leads_while_the_socket_is_attended(self) -> None:
        assert not self.handover.lead()

    def test_one_thread_leads_a_free_socket(self) -> None:
        assert self.handover.rest()
        assert self.handover.lead()
        assert not self.handover.lead()
        assert not self.handover.tick()
        self.handover.end_lead(is_quiet=True)
        assert self.woken == []
        assert self.handover.lead()

    def test_a_lead_that_leaves_work_wakes_the_network_thread(self) -> None:
        self.handover.rest()
        self.handover.lead()
        self.handover.end_lead(is_quiet=False)
        assert self.woken == ["network"]
        assert not self.handover.lead()
        assert self.handover.tick()
        assert not self.handover.end_tick(is_quiet=False)

    @pytest.mark.parametrize("left", ["inbox", "waits", "callbacks"])
    def test_nothing_is_left_behind(self, left: str) -> None:
        self.handover.rest()
        self.handover.lead()
        if left == "inbox":
            self.inbox.append(1)
        elif left == "waits":
            self.handover.waits.add(object())
        else:
            self.handover.callbacks.append(lambda: None)
        self.handover.end_lead(is_quiet=True)
        assert self.woken == ["network"]

    def test_one_event_waits_for_its_sender_and_two_do_not(self) -> None:
        self.handover.rest()
        self.inbox.append(1)
        self.handover.posted()
        assert self.woken == []
        self.inbox.append(2)
        self.handover.posted()
        assert self.woken == ["network"]

    def test_a_thread_that_waits_leads_although_it_has_posted_before(self) -> None:
        self.handover.rest()
        for is_waiting in (False, True):
            self.inbox.append(1)
            self.handover.posted(is_waiting=is_waiting)
        assert self.woken == []
        assert self.handover.lead()

    def test_a_thread_that_waits_and_may_not_lead_wakes_the_network_thread(self) -> None:
        self.handover.rest()
        self.handover.sleeps(object())
        assert self.woken == ["network"]
        assert not self.handover.lead()
        assert self.handover.tick()
        self.handover.waits.clear()
        self.inbox.append(1)
        assert not self.handover.end_tick(is_quiet=True)

    def test_an_owner_that_sleeps_is_woken_once(self) -> None:
        self.handover.is_asleep = True
        for _ in range(2):
            self.inbox.append(1)
            self.handover.posted()
        assert self.woken == ["owner"]

    def test_an_event_during_the_release_is_attended(self) -> None:
        self.inbox.append(1)
        assert not self.handover.rest()

    def test_without_leads_the_network_thread_attends_again(self) -> None:
        self.handover.rest()
        ticks = 0
        while True:
            assert self.handover.tick()
            ticks += 1
            if not self.handover.end_tick(is_quiet=True):
                break
        assert ticks == SPELL_TICKS

    def test_a_lead_begins_a_new_spell(self) -> None:
        self.handover.rest()
        for _ in range(3 * SPELL_TICKS):
            assert self.handover.lead()
            self.handover.end_lead(is_quiet=True)
            assert self.handover.tick()
            assert self.handover.end_tick(is_quiet=True)

    def test_nobody_leads_a_closed_client(self) -> None:
        self.handover.rest()
        self.handover.stop()
        assert not self.handover.lead()
