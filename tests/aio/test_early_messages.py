"""Messages to a topic whose partitions are not known yet, without a broker."""

from types import SimpleNamespace
from typing import Any

from planaria.transport.aio.producer import _EarlyMessages
from planaria.transport.machine import Failed
from planaria.transport.protocol.errors import ErrorBody, ErrorCode


def test_the_end_of_the_network_adds_no_second_outcome_to_one_that_the_loop_has_not_taken() -> None:
    posted: list[Any] = []
    found: list[str] = []
    caller: Any = SimpleNamespace(
        bridge=SimpleNamespace(post=posted.append), network=SimpleNamespace(abandon=lambda _: None)
    )
    early = _EarlyMessages(caller, (call for call in ()), lambda: found.append("found"))
    early.handle(Failed(None, ErrorBody(ErrorCode.TIMED_OUT, "slow")), 0)
    early.handle(Failed(None, ErrorBody(ErrorCode.SHUTTING_DOWN, "closed")), 0)
    for callback in posted:
        callback()
    assert found == ["found"]
    assert "slow" in str(early.error)
