"""The network of a client as the threads of programs use it: calls that wait for their outcome.

Owns the list of the client's open objects.
"""

from collections.abc import Callable, Generator
from functools import partial
from types import TracebackType
from typing import Protocol, TypeVar

from ..addresses import GATEWAY, Address
from ..calls.connections import Owner
from ..calls.events import (
    Submitted,
    Wanted,
    Withdrawn,
)
from ..codec import encode_header
from ..endpoints import Endpoints
from ..machine import Answered, Call, Event, Failed
from ..protocol.errors import PlanariaError
from ..protocol.message import Reply, Request
from ..protocol.session import Metadata, MetadataReply
from ..request_context import ContextFrames
from ..security.keys import NO_CREDENTIALS, ClientCredentials
from .errors import UnknownTopic, error_from
from .gate import Gate
from .network_thread import NetworkThread
from .options import InvalidOption, check_name
from .waiting import Requester, RequesterClosed, Waiter

ReplyT = TypeVar("ReplyT", bound=Reply)


class Closable(Protocol):
    """A producer or a consumer of a client."""

    def close(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


ClosableT = TypeVar("ClosableT", bound=Closable)


class Network(NetworkThread):
    """The network thread, and the calls of other threads through it."""

    def __init__(
        self,
        endpoint: Endpoints,
        *,
        client_id: str,
        metadata_timeout_ms: int,
        credentials: ClientCredentials = NO_CREDENTIALS,
        contexts: ContextFrames | None = None,
    ) -> None:
        self._open: dict[Closable, None] = {}
        super().__init__(
            endpoint,
            client_id=client_id,
            metadata_timeout_ms=metadata_timeout_ms,
            credentials=credentials,
            contexts=contexts,
        )

    def keep(self, item: ClosableT) -> ClosableT:
        """Close the object with the client, unless it is closed before."""
        self._open[item] = None
        return item

    def forget(self, item: Closable) -> None:
        self._open.pop(item, None)

    def open_items(self) -> list[Closable]:
        return list(self._open)

    def call(
        self,
        address: Address,
        request: Request,
        reply_type: type[ReplyT],
        *,
        timeout_ms: int,
        is_retried: bool = True,
        requester: Requester | None = None,
    ) -> ReplyT:
        """Send a request and wait for the reply. Raises ProtocolError, usually TimedOut, or Closed.

        `end_calls(requester)` ends the wait.
        """
        call = Call(None, address, request, reply_type, timeout_ms=timeout_ms, is_retried=is_retried)
        return self.exchange(call, requester).reply  # type: ignore[no-any-return]

    def exchange(self, call: Call, requester: Requester | None = None) -> Answered:
        """Like `call`, but return the payload as well. Raises InvalidOption if a message cannot hold the request."""
        _refuse_unsendable(call)
        return self.outcome(self.owner, lambda waiter: Submitted(waiter, call), requester)

    def end_calls(self, requester: Requester) -> None:
        """End the waits of an object that is closed; its `_refuse_when_closed` raises their error."""
        for waiter in list(self._waiters):
            if waiter.requester is requester:
                self.post(waiter, RequesterClosed())

    def outcome(
        self, owner: Owner, event_for: Callable[[Owner], Event], requester: Requester | None = None
    ) -> Answered:
        """Post to `owner` an event that results in one outcome, and wait for it. Raises the errors of `call`."""
        if self.is_network_thread():
            raise PlanariaError(
                "a callback must not wait for the broker: it runs in the network's own thread"
            )
        gate = Gate()
        waiter = Waiter(partial(self.let_pass, gate), requester)
        try:
            self.begin(waiter, owner, event_for(waiter), is_waiting=True)
            self.wait(gate)
        finally:
            self.abandon(waiter)
        return self.answer_to(waiter)

    def begin(self, waiter: Waiter, owner: Owner, event: Event, *, is_waiting: bool = False) -> None:
        """Post to `owner` an event that results in one outcome for the waiter. `abandon` must follow, also on errors."""
        self._waiters.add(waiter)
        self.refuse_when_closed()
        if waiter.requester is not None:
            waiter.requester._refuse_when_closed()
        self.post(owner, event, is_waiting=is_waiting)

    def abandon(self, waiter: Waiter) -> None:
        """End a wait. The call is withdrawn if it has no outcome yet."""
        self._waiters.discard(waiter)
        if waiter.event is None or isinstance(waiter.event, RequesterClosed):  # interrupted
            self.post(self.owner, Withdrawn(waiter))

    def answer_to(self, waiter: Waiter) -> Answered:
        """Return the reply that a waiter has received, or raise the error."""
        if isinstance(waiter.event, RequesterClosed):
            assert waiter.requester is not None
            waiter.requester._refuse_when_closed()
        if isinstance(waiter.event, Failed):
            self.refuse_when_closed()
            raise error_from(waiter.event.error)
        answered: Answered = waiter.event
        return answered

    def partitions_of(
        self, topic: str, timeout_ms: int, least: int = 1, requester: Requester | None = None
    ) -> int:
        """Return the number of partitions of a topic. Raises UnknownTopic.

        Asks the broker if the topic, or its partition number `least`, is new here.
        """
        finding = self.finding_partitions(topic, timeout_ms, least)
        answer: MetadataReply | None = None
        while True:
            try:
                call = finding.send(answer)  # type: ignore[arg-type]
            except StopIteration as found:
                return int(found.value)
            answer = self.exchange(call, requester).reply

    def finding_partitions(
        self, topic: str, timeout_ms: int, least: int = 1
    ) -> Generator[Call, MetadataReply, int]:
        """Yield the calls that `partitions_of` makes, take their replies, and return the number of partitions."""
        try:
            known = self.topics.partition_count(topic)
        except TypeError:
            check_name("topic", topic)
            raise
        if known is not None and (known >= least or self.is_network_thread()):
            return known
        check_name("topic", topic)
        self.post(self.owner, Wanted(topic))
        give_up_at = self.now_ms() + self.metadata_timeout_ms
        deadline = self.now_ms() + timeout_ms
        version: int | None = None
        while True:
            wait_ms = 0 if version is None else max(0, min(give_up_at, deadline) - self.now_ms())
            request = Metadata(topics=[topic], after_version=version, max_wait_ms=wait_ms)
            left_ms = max(0, deadline - self.now_ms())
            reply = yield Call(None, GATEWAY, request, MetadataReply, timeout_ms=left_ms, is_retried=True)
            is_known = bool(reply.topics) and not self.topics.is_gone(reply.topics[0])
            found = len(reply.topics[0].partitions) if is_known else 0
            if found >= least:
                return found
            if self.now_ms() >= min(give_up_at, deadline):
                if found:
                    return found
                raise UnknownTopic(topic)
            version = reply.version


def _refuse_unsendable(call: Call) -> None:
    """Fail a request that cannot be sent in the program's own thread: all objects share the network thread."""
    request = call.request
    assert not isinstance(request, bytes)
    try:
        encode_header(request)
    except (OverflowError, TypeError, ValueError) as error:
        op = request.__struct_config__.tag
        raise InvalidOption(f"{op} to {call.address!r} cannot be sent: {error}") from error
