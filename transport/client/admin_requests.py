"""Requests of administrative calls: to the gateway, to a partition, to the supervisor. The base of `admin.py`."""

from collections.abc import Callable
from typing import Any, TypeVar

from ..addresses import GATEWAY, partition_address
from ..protocol.errors import ProtocolError
from ..protocol.message import Done, Reply, Request
from .network import Network
from .options import InvalidOption

ReplyT = TypeVar("ReplyT", bound=Reply)


class AdminRequests:
    """Sends requests, and waits for each reply until the request timeout."""

    def __init__(self, network: Network, request_timeout_ms: int) -> None:
        self._network = network
        self._request_timeout_ms = request_timeout_ms

    def _ask(self, request: Request, reply_type: type[ReplyT], *, is_retried: bool = True) -> ReplyT:
        timeout_ms = self._request_timeout_ms
        return self._network.call(GATEWAY, request, reply_type, timeout_ms=timeout_ms, is_retried=is_retried)

    def _ask_once(self, request: Request, is_made: Callable[[ProtocolError], bool]) -> None:
        """Make a change that cannot be repeated. If the first attempt has no answer the second one may be refused because
        of it: `is_made` returns True for such a refusal."""
        try:
            self._ask(request, Done, is_retried=False)
            return
        except ProtocolError as error:
            if not error.retriable:
                raise
        try:
            self._ask(request, Done)
        except ProtocolError as error:
            if not is_made(error):
                raise

    def _ask_partition(
        self, topic: str, partition: int, request: Request, reply_type: type[ReplyT]
    ) -> ReplyT:
        given: tuple[Any, Any] = (topic, partition)
        if not isinstance(given[0], str) or not isinstance(given[1], int):
            op = request.__struct_config__.tag
            raise InvalidOption(
                f"{op}: {topic!r}, {partition!r} are not a topic and the number of a partition"
            )
        address = partition_address(topic, partition)
        return self._network.call(address, request, reply_type, timeout_ms=self._request_timeout_ms)

    def _ask_supervisor(
        self, request: Request, reply_type: type[ReplyT], *, is_retried: bool = True
    ) -> ReplyT:
        """Through the gateway; an embedded broker asks its supervisor itself."""
        return self._ask(request, reply_type, is_retried=is_retried)
