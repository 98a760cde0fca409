"""The class of an error on the wire, and its text."""

import copy
import pickle

import pytest

from planaria import (
    Closed,
    CorruptData,
    GroupNotEmpty,
    InvalidOption,
    PlanariaError,
    ProtocolError,
    TopicExists,
    UnknownGroup,
    UnknownTopic,
)
from planaria.transport.client.errors import Forked, error_from, unknown_topic
from planaria.transport.protocol.errors import ErrorBody, ErrorCode


@pytest.mark.parametrize(
    ("message", "topic"),
    [
        ("there is no topic 'ORDERS.dlq'", "ORDERS.dlq"),
        (unknown_topic("ORDERS").message, "ORDERS"),
        ("dead_letter: there is no topic 'x-y'", "x-y"),
        ("it was deleted", None),
    ],
)
def test_whoever_says_it_an_unknown_topic_is_one_error(message: str, topic: str | None) -> None:
    error = error_from(ErrorBody(ErrorCode.UNKNOWN_TOPIC, message))
    assert isinstance(error, UnknownTopic)
    assert (error.topic, error.message, error.code) == (topic, message, ErrorCode.UNKNOWN_TOPIC)


def test_what_has_no_class_of_its_own_has_its_code() -> None:
    error = error_from(ErrorBody("FROM_THE_FUTURE", "what?", True))
    assert type(error) is ProtocolError
    assert (error.code, error.retriable) == ("FROM_THE_FUTURE", True)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.TOPIC_EXISTS, TopicExists),
        (ErrorCode.UNKNOWN_GROUP, UnknownGroup),
        (ErrorCode.GROUP_NOT_EMPTY, GroupNotEmpty),
        (ErrorCode.TIMED_OUT, TimeoutError),
    ],
)
def test_a_code_that_programs_match_has_a_class(code: ErrorCode, kind: type[Exception]) -> None:
    error = error_from(ErrorBody(code, "refused"))
    assert isinstance(error, kind)
    assert isinstance(error, ProtocolError)
    assert (error.code, error.message, str(error)) == (code, "refused", f"{code}: refused")


@pytest.mark.parametrize(
    "error",
    [
        *(error_from(ErrorBody(code, "no", next_offset=7, present=3)) for code in ErrorCode),
        UnknownTopic("ORDERS"),
        CorruptData("ORDERS", 1, 52, "a flipped bit", 60),
        Forked(4711),
        Closed("the client is closed"),
        InvalidOption("acks: must be 0, 1 or all"),
    ],
    ids=lambda error: f"{type(error).__name__} {getattr(error, 'code', '')}",
)
def test_an_error_of_another_process_is_the_same(error: PlanariaError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (type(other), str(other), other.args) == (type(error), str(error), error.args)
        assert vars(other) == vars(error)
