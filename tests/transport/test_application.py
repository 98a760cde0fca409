"""The application object: declarations, their checks, and the ticks of its periodic functions."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from planaria import App
from planaria.transport.application import PERIODIC, description_of, handler_of
from planaria.transport.keywords import SubscriberConfig
from planaria.transport.periodic import Schedule, Tick, period_of
from planaria.transport.subscription import InvalidSubscription

MINUTE = 60_000


class Clockwork:
    """A clock that stands still, and the messages that were scheduled."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.scheduled: dict[str, int] = {}

    def schedule(self) -> Schedule:
        def publish_at(topic: str, value: Any, key: str, at_ms: int, scheduled_id: str) -> None:
            assert value["due_ms"] == at_ms > self.now_ms
            self.scheduled[scheduled_id] = at_ms

        return Schedule(publish_at, lambda: self.now_ms, asyncio.run)


def test_a_declared_function_is_unchanged_and_described() -> None:
    app = App()

    def charge(order: dict[str, int]) -> int:
        return order["amount"]

    declared = app.subscribe(
        ["ORDERS", "REFUNDS"], group="billing", workers=2, retries=3, backoff_ms=timedelta(seconds=2)
    )(charge)
    assert declared is charge
    [subscription] = description_of(app).subscriptions
    assert (subscription.group, subscription.topics, subscription.workers) == (
        "billing",
        ["ORDERS", "REFUNDS"],
        2,
    )
    assert subscription.options == {"retries": 3, "backoff_ms": 2_000}
    assert handler_of(app, subscription.name, None) is charge


def test_every_option_of_a_hosted_subscription_is_taken() -> None:
    given: SubscriberConfig = {
        "delivery": "exactly-once",
        "retries": 1,
        "backoff_ms": [1],
        "backoff_factor": 1.0,
        "backoff_max_ms": 60_000,
        "backoff_jitter": 0.0,
        "dead_letter": "D",
        "retry_alarm_ms": 1,
        "concurrency": 2,
        "rate_per_key": 1.0,
        "weights": {"gold": 3},
        "coalesce": "latest",
        "max_wait_ms": 1,
        "breaker_window": 0,
        "breaker_share": 1.0,
        "breaker_pause_ms": 1,
        "handler_timeout_ms": 1,
        "cpu_limit": 1.0,
        "memory_limit": 2**24,
        "session_timeout_ms": 100,
        "auto_offset_reset": "latest",
        "on_damage": "skip",
        "max_records": 1,
        "max_in_flight_per_key": 1,
        "expired": "skip",
        "correlation_header": "correlation-id",
    }
    assert given.keys() == SubscriberConfig.__annotations__.keys()
    app = App()
    app.subscribe("T", group="g", **given)(print)
    assert description_of(app).subscriptions[0].options == given


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"group": "g", "retrys": 3}, "unknown option 'retrys', the nearest is 'retries'"),
        ({"group": "g", "retries": -1}, "retries: must be at least 0"),
        ({"group": ""}, "group: must not be empty"),
        ({"group": "g", "dead_letter": "T"}, "dead_letter"),
        ({"group": "g", "workers": 0}, "workers: must be from 1 to 1000"),
    ],
)
def test_a_wrong_declaration_is_refused_where_it_stands(arguments: Any, complaint: str) -> None:
    with pytest.raises(InvalidSubscription, match=complaint):
        App().subscribe("T", **arguments)(print)


def test_two_handlers_of_one_name_are_refused() -> None:
    app = App("shop")
    app.every(60)(print)
    with pytest.raises(InvalidSubscription, match="two are named 'print'"):
        app.subscribe("T", group="g")(print)


@pytest.mark.parametrize(
    ("period", "milliseconds"),
    [("5m", 5 * MINUTE), ("1500ms", 1_500), (90, 90_000), (1.5, 1_500), (timedelta(hours=1), 60 * MINUTE)],
)
def test_periods(period: Any, milliseconds: int) -> None:
    assert period_of(period) == milliseconds


@pytest.mark.parametrize(
    "period", ["5", "5 minutes", 0, 0.5, -1, True, None, "367d", timedelta(0), float("1e12")]
)
def test_wrong_periods(period: Any) -> None:
    with pytest.raises(InvalidSubscription, match="every: period"):
        App("shop").every(period)


def test_an_application_without_a_name_has_no_periodic_functions() -> None:
    with pytest.raises(InvalidSubscription, match="needs a name"):
        App().every("5m")


def test_a_tick_orders_the_next_one_and_runs_its_function() -> None:
    app, runs, clockwork = App("shop"), list[str](), Clockwork(10 * MINUTE + 3)

    @app.every("5m")
    def report() -> None:
        runs.append("report")

    @app.every("1m")
    async def ping() -> None:
        runs.append("ping")

    description = description_of(app)
    assert (description.periodic_topic, sorted(description.periods_ms.values())) == (
        "shop.periodic",
        [MINUTE, 5 * MINUTE],
    )
    assert description.subscriptions[0].options["concurrency"] == 2
    report_name, ping_name = description.periods_ms
    on_tick = handler_of(app, PERIODIC, clockwork.schedule())
    on_tick(Tick(report_name, 5 * MINUTE, 10 * MINUTE))
    on_tick(Tick(report_name, 5 * MINUTE, 10 * MINUTE))
    assert sorted(clockwork.scheduled.values()) == [15 * MINUTE], "a repeated tick orders the same next one"
    on_tick(Tick(ping_name, MINUTE, 10 * MINUTE))
    assert runs == ["report", "report", "ping"]


def test_ticks_that_are_late_or_of_another_version_run_nothing() -> None:
    app, runs, clockwork = App("shop"), list[str](), Clockwork(20 * MINUTE)
    app.every("5m")(print)
    on_tick = handler_of(app, PERIODIC, clockwork.schedule())
    on_tick(Tick("gone", 5 * MINUTE, 20 * MINUTE))
    on_tick(Tick("print", 7 * MINUTE, 14 * MINUTE))
    assert clockwork.scheduled == {}, "these series end"
    on_tick(Tick("print", 5 * MINUTE, 15 * MINUTE))
    assert list(clockwork.scheduled.values()) == [25 * MINUTE], "the series of a late tick goes on"
    assert runs == []
