"""A text of the wrong form is refused with the form in words, by any path."""

import pytest

from planaria.supervisor import config
from planaria.transport.codec import RequestDecoder
from planaria.transport.protocol.errors import ProtocolError
from planaria.transport.protocol.topics import CreateTopic


def test_a_request_is_refused_in_words() -> None:
    header = b'{"op": "create_topic", "topic": "T", "partitions": 1, "config": {"flush": "sometimes"}}'
    with pytest.raises(ProtocolError) as refused:
        RequestDecoder([CreateTopic]).decode(header)
    expected = (
        "create_topic: Expected batch, os, or interval: and a time such as 100ms or 5s - at `$.config.flush`"
    )
    assert refused.value.message == expected


def test_a_configuration_is_refused_in_words() -> None:
    with pytest.raises(config.ConfigError) as refused:
        config.load(environment={"PLANARIA_ENDPOINT": "here"})
    expected = "endpoint: Expected tcp://HOST:PORT, or * as the port for one that is free"
    assert str(refused.value) == f"the environment: {expected}"
