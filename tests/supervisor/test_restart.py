"""Intensity, backoff and quarantine of one child."""

from planaria.supervisor.restart import Decision, RestartHistory, RestartPolicy


def crash_at_once(history: RestartHistory, now: int) -> tuple[list[int], int]:
    """Crash again right after each restart until the child is given up; return the delays, and that time."""
    delays = []
    while (decision := history.decide(now, 0, 1.0)).delay_ms is not None and not decision.is_quarantined:
        delays.append(decision.delay_ms)
        now += decision.delay_ms
    return delays, now


def test_delays_grow_and_then_it_is_quarantined() -> None:
    delays, _ = crash_at_once(RestartHistory(RestartPolicy()), 1_000_000)
    assert delays == [0, 100, 400, 1_600, 6_400]


def test_the_longest_delay_is_the_last_one() -> None:
    history = RestartHistory(RestartPolicy(intensity=100))
    delays = [history.decide(1_000_000, 0, 1.0).delay_ms for _ in range(8)]
    assert delays == [0, 100, 400, 1_600, 6_400, 30_000, 30_000, 30_000]


def test_jitter_scales_the_delay() -> None:
    history = RestartHistory(RestartPolicy())
    history.decide(0, 0, 1.2)
    assert history.decide(0, 0, 1.2).delay_ms == 120


def test_having_been_ready_for_a_while_resets_the_backoff_but_not_the_count() -> None:
    policy = RestartPolicy(intensity=3)
    history = RestartHistory(policy)
    now = 1_000_000
    for _ in range(3):
        assert history.decide(now, policy.backoff_reset_ms, 1.0) == Decision(0, False)
        now += 2_000
    assert history.decide(now, policy.backoff_reset_ms, 1.0).is_quarantined


def test_having_been_ready_too_short_resets_nothing() -> None:
    policy = RestartPolicy()
    history = RestartHistory(policy)
    history.decide(0, 0, 1.0)
    assert history.decide(0, policy.backoff_reset_ms - 1, 1.0).delay_ms == 100


def test_old_restarts_do_not_count() -> None:
    policy = RestartPolicy(intensity=2)
    history = RestartHistory(policy)
    for now in range(0, 100 * policy.period_ms, policy.period_ms // 2 + 1):
        assert not history.decide(now, policy.backoff_reset_ms, 1.0).is_quarantined


def test_after_quarantine_there_is_one_try() -> None:
    policy = RestartPolicy()
    history = RestartHistory(policy)
    _, now = crash_at_once(history, 0)
    now += policy.quarantine_retry_ms
    assert history.decide(now, 0, 1.0) == Decision(policy.quarantine_retry_ms, True)
    assert history.decide(now, policy.period_ms - 1, 1.0).is_quarantined


def test_a_period_of_being_ready_ends_the_probation() -> None:
    policy = RestartPolicy()
    history = RestartHistory(policy)
    _, now = crash_at_once(history, 0)
    now += policy.quarantine_retry_ms
    assert history.decide(now, policy.period_ms, 1.0) == Decision(0, False)


def test_forgiven_it_begins_afresh() -> None:
    history = RestartHistory(RestartPolicy())
    _, now = crash_at_once(history, 0)
    history.forgive()
    assert crash_at_once(history, now)[0] == [0, 100, 400, 1_600, 6_400]


def test_without_slow_retry_it_stays_down() -> None:
    history = RestartHistory(RestartPolicy(intensity=0, quarantine_retry_ms=0))
    assert history.decide(0, 0, 1.0) == Decision(None, True)
