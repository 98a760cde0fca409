"""A table holds the last message of each key, and reads a partition again whose records were replaced."""

from collections.abc import Sequence

from planaria.transport.addresses import TopicPartition
from planaria.transport.client.messages import Message
from planaria.transport.client.table_state import Place, Step, TableState

P, Q = TopicPartition("T", 0), TopicPartition("T", 1)


def message(tp: TopicPartition, offset: int, key: bytes | None, value: bytes | None) -> Message:
    return Message(*tp, offset, key, value, 0)


def values(state: TableState) -> dict[bytes, bytes | None]:
    return {key: each.value for key, each in state.messages.items()}


def apply(
    state: TableState, messages: Sequence[Message], **ends: tuple[int, str | None]
) -> list[TopicPartition]:
    places = {{"p": P, "q": Q}[name]: Place(*end) for name, end in ends.items()}
    return state.apply(Step(list(messages), places))


def test_the_last_message_of_each_key_counts() -> None:
    state = TableState()
    sent = [
        message(P, 0, b"a", b"1"),
        message(P, 1, b"b", b"2"),
        message(P, 2, b"a", b"3"),
        message(P, 3, None, b"4"),
    ]
    apply(state, sent, p=(4, "t"))
    apply(state, [message(P, 4, b"b", None), message(Q, 0, b"c", b"5")], p=(5, "t"), q=(1, "t"))
    assert values(state) == {b"a": b"3", b"c": b"5"}


def test_a_call_is_made_once_all_is_read() -> None:
    state, calls = TableState(), []
    state.call_when({P: 3, Q: 1}, lambda: calls.append("both"))
    state.call_when({P: 1}, lambda: calls.append("first"))
    forgotten = lambda: calls.append("never")  # noqa: E731
    state.call_when({P: 2}, forgotten)
    state.forget(forgotten)
    apply(state, [], p=(2, "t"))
    assert calls == ["first"]
    apply(state, [], p=(3, "t"), q=(1, "t"))
    state.call_when({P: 3}, lambda: calls.append("at once"))
    assert calls == ["first", "both", "at once"]


def test_a_partition_whose_records_were_replaced_is_read_again() -> None:
    state = TableState()
    apply(state, [message(P, 0, b"a", b"1"), message(Q, 0, b"b", b"2")], p=(1, "t"), q=(1, "t"))
    assert apply(state, [message(P, 0, b"x", b"9")], p=(1, "again")) == [P]
    assert values(state) == {b"b": b"2"}
    assert not state.includes({P: 0})
    assert apply(state, [message(P, 0, b"x", b"9")], p=(1, "again"), q=(1, "t")) == []
    assert apply(state, [], q=(0, "t")) == [Q]
    assert values(state) == {b"x": b"9"}
