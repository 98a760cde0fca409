"""Quotas are decided, durable, sent to the watchers of the catalog, and present after a restart."""

import pytest

from controller_driver import ControllerDriver
from planaria.actors.controller.catalog import decode_catalog, encode_catalog
from planaria.transport.protocol.quotas import (
    ListQuotas,
    Quota,
    QuotaChange,
    QuotasInForce,
    RemoveQuota,
    SetQuota,
)
from planaria.transport.protocol.topics import CreateTopic, WatchCatalog


@pytest.fixture
def controller() -> ControllerDriver:
    return ControllerDriver()


def quotas_of(controller: ControllerDriver) -> dict[str, Quota]:
    found: dict[str, Quota] = controller.replies[controller.ask(ListQuotas())].quotas
    return found


def test_limits_are_set_one_by_one_and_survive(controller: ControllerDriver) -> None:
    controller.ask(SetQuota(client_id="reports", quota=QuotaChange(fetch_bytes=10)))
    controller.ask(SetQuota(client_id="reports", quota=QuotaChange(produce_requests=5)))
    controller.ask(SetQuota(client_id="reports", quota=QuotaChange(fetch_bytes=-1, produce_bytes=7)))
    expected = {"reports": Quota(produce_bytes=7, produce_requests=5)}
    assert quotas_of(controller) == expected
    saved = decode_catalog(encode_catalog(controller.saved[-1]), "catalog.json")
    assert quotas_of(ControllerDriver(saved)) == expected
    controller.ask(RemoveQuota(client_id="reports"))
    assert quotas_of(controller) == {}


def test_who_watches_the_catalog_hears_of_them(controller: ControllerDriver) -> None:
    version = controller.replies[controller.ask(WatchCatalog())].version
    watching = controller.ask(WatchCatalog(after_version=version, max_wait_ms=60_000))
    assert watching not in controller.replies
    controller.ask(SetQuota(client_id="reports", quota=QuotaChange(fetch_bytes=10)))
    assert controller.replies[watching].quotas == {"reports": Quota(fetch_bytes=10)}


def test_partitions_hear_of_them_when_they_change_and_when_they_start(controller: ControllerDriver) -> None:
    controller.ask(CreateTopic(topic="T", partitions=2))
    assert told(controller) == []
    controller.ask(SetQuota(client_id="reports", quota=QuotaChange(fetch_bytes=10)))
    controller.ask(SetQuota(client_id="default", quota=QuotaChange(produce_bytes=10)))
    expected = QuotasInForce(clients=frozenset({"reports"}), default=True)
    assert told(controller)[-2:] == [("partition/T/0", expected), ("partition/T/1", expected)]
    controller.ask(SetQuota(client_id="reports", quota=QuotaChange(fetch_bytes=-1)))
    expected = QuotasInForce(exempt=frozenset({"reports"}), default=True)
    controller.casts.clear()
    controller.ask(CreateTopic(topic="NEW"))
    assert told(controller) == [("partition/NEW/0", expected)]
    assert expected.limits("anybody")
    assert not expected.limits("reports")


def test_partitions_hear_of_the_end_of_the_last_one_from_the_next_controller(
    controller: ControllerDriver,
) -> None:
    """The removal was durable when the controller before died."""
    controller.ask(CreateTopic(topic="T", partitions=1))
    controller.ask(SetQuota(client_id="reports", quota=QuotaChange(fetch_bytes=10)))
    controller.ask(RemoveQuota(client_id="reports"))
    successor = ControllerDriver(controller.saved[-1], incarnation=2)
    successor.comes_up = False
    successor.load()
    successor.bring_up("partition/T/0")
    assert told(successor) == [("partition/T/0", QuotasInForce())]


def told(controller: ControllerDriver) -> list[tuple[str, QuotasInForce]]:
    return [
        (cast.address, cast.request) for cast in controller.casts if isinstance(cast.request, QuotasInForce)
    ]


def test_what_is_not_durable_is_not_said(controller: ControllerDriver) -> None:
    controller.is_full = True
    refusal = controller.replies[controller.ask(SetQuota(client_id="c", quota=QuotaChange(fetch_bytes=10)))]
    assert (refusal.code, refusal.retriable) == ("STORAGE_FULL", True)
    assert quotas_of(controller) == {}


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (SetQuota(client_id="c", quota=QuotaChange()), "INVALID_CONFIG", "names no limit"),
        (
            SetQuota(client_id="c", quota=QuotaChange(fetch_bytes=0)),
            "INVALID_CONFIG",
            "quota.fetch_bytes: at least 1",
        ),
        (RemoveQuota(client_id="c"), "UNKNOWN_QUOTA", "'c' has no quota"),
    ],
)
def test_bad_input_is_told_what_is_wrong(
    controller: ControllerDriver, request_: SetQuota | RemoveQuota, code: str, says: str
) -> None:
    refusal = controller.replies[controller.ask(request_)]
    assert refusal.code == code
    assert says in refusal.message
