"""The records of `__offsets`, byte for byte: a group written by one version is read by the next."""

import pytest

from planaria.actors.coordinator.members import Member
from planaria.actors.coordinator.offsets import CommittedOffset
from planaria.actors.coordinator.records import (
    Change,
    GroupKey,
    GroupProgress,
    KnownTopic,
    MemberKey,
    OffsetKey,
    Start,
    StartKey,
    TopicKey,
    Unused,
    UnusedKey,
    decode,
    encode,
)
from planaria.actors.coordinator.state import GroupState, TwoHolders
from planaria.actors.journal.replay import InvalidRecord

MEMBER = Member(
    member_id="m",
    instance_id="worker-1",
    topics=("A",),
    session_timeout_ms=3_000,
    generation=7,
    target=frozenset({("A", 0), ("A", 1)}),
    held={("A", 0): 5, ("A", 1): 7},
)
MEMBER_VALUE = (
    b"\x86\xa6topics\x91\xa1A\xb2session_timeout_ms\xcd\x0b\xb8\xaageneration\x07\xabinstance_id\xa8worker-1"
    b"\xa6target\x81\xa1A\x92\x00\x01\xa4held\x92\x93\xa1A\x05\x91\x00\x93\xa1A\x07\x91\x01"
)
VECTORS = [
    (
        Change(StartKey("g"), Start(3, "run.1")),
        b"\x92\xa5start\xa1g",
        b"\x82\xa5epoch\x03\xa7starter\xa5run.1",
    ),
    (Change(UnusedKey("g"), Unused(7)), b"\x92\xa6unused\xa1g", b"\x81\xa8since_ms\x07"),
    (Change(GroupKey("g"), GroupProgress(7)), b"\x92\xa5group\xa1g", b"\x81\xaageneration\x07"),
    (Change(MemberKey("g", "m"), MEMBER), b"\x93\xa6member\xa1g\xa1m", MEMBER_VALUE),
    (Change(TopicKey("g", "A"), KnownTopic("id")), b"\x93\xa5topic\xa1g\xa1A", b"\x81\xa8topic_id\xa2id"),
    (
        Change(OffsetKey("g", "A", 1), CommittedOffset(9, "note")),
        b"\x94\xa6offset\xa1g\xa1A\x01",
        b"\x82\xa6offset\x09\xa8metadata\xa4note",
    ),
    (Change(OffsetKey("g", "A", 1), None), b"\x94\xa6offset\xa1g\xa1A\x01", None),
]


@pytest.mark.parametrize(("change", "key", "value"), VECTORS)
def test_vectors(change: Change, key: bytes, value: bytes | None) -> None:
    assert encode(change) == (key, value, 0, None)
    assert decode(key, value, "g") == change
    assert decode(key, value, "another") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b""),
        (b"\x92\xa6future\xa1g", b"\x80"),
        (b"\x92\xa5group\xa1g", b"\x80"),
        (b"\x92\xa5group\xa1g", b"\xc1"),
    ],
)
def test_what_cannot_be_read_is_said(key: bytes | None, value: bytes) -> None:
    with pytest.raises(InvalidRecord):
        decode(key, value, "g")


def test_a_state_refuses_a_second_holder() -> None:
    state = GroupState("g")
    state.apply(Change(MemberKey("g", "m"), MEMBER))
    with pytest.raises(TwoHolders):
        state.apply(Change(MemberKey("g", "n"), Member(member_id="n", held={("A", 1): 8})))


def test_a_state_is_rebuilt_from_its_changes() -> None:
    state = GroupState("g")
    for change, _, _ in VECTORS[:5]:
        state.apply(change)
    again = GroupState("g")
    for change in state.changes():
        again.apply(change)
    assert vars(again) == vars(state)
