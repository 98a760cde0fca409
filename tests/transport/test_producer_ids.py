"""The layout of producer ids: its ranges, JavaScript's limit, and the part that follows the clock."""

import pytest

from planaria.actors.journal.identity import identity_of
from planaria.transport.producer_ids import (
    IDS_PER_ERA,
    MAX_COORDINATORS,
    coordinator_of,
    era_after,
    era_of,
    producer_id_of,
    transactional_producer_id,
)

NOW_MS = 1_900_000_000_000


def test_every_id_is_exact_in_a_double() -> None:
    last_ms = 1_767_225_600_000 + (2**34 - 1) * 1000 // 16
    largest = transactional_producer_id(
        MAX_COORDINATORS - 1, producer_id_of(era_after(0, last_ms), IDS_PER_ERA - 1)
    )
    assert largest < 2**53
    assert int(float(largest)) == largest


@pytest.mark.parametrize("coordinator", [0, 1, MAX_COORDINATORS - 1])
def test_the_parts_can_be_told_apart(coordinator: int) -> None:
    number = producer_id_of(era_after(0, NOW_MS), 5)
    producer_id = transactional_producer_id(coordinator, number)
    assert (coordinator_of(number), coordinator_of(producer_id)) == (None, coordinator)
    assert era_of(number) == era_of(producer_id) == era_after(0, NOW_MS)
    # Only the issuer interprets the cluster's number.
    assert coordinator_of(producer_id | 31 << 48) == coordinator


def test_an_era_follows_the_clock_and_never_goes_back() -> None:
    era = era_after(0, NOW_MS)
    assert era_after(era, NOW_MS) == era + 1
    assert era_after(era, NOW_MS - 3_600_000) == era + 1
    assert era_after(era, NOW_MS + 3_600_000) == era + 16 * 3_600


def test_ids_that_are_never_given_out_have_no_parts() -> None:
    for producer_id in (-1, identity_of("coordinator/G", 0).producer_id):
        assert era_of(producer_id) is None
        assert coordinator_of(producer_id) is None
