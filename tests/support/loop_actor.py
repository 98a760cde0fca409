"""A small actor on a real loop in a thread, and the supervisor's end of its control link, held by the test."""

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar

import zmq
from msgspec import Struct

from patience import TIMEOUT_MS
from planaria.transport import sockets
from planaria.transport.actor import Actor, ActorContext
from planaria.transport.addresses import Address
from planaria.transport.codec import RequestDecoder, encode_header
from planaria.transport.endpoints import control_endpoint, endpoint_for, peer_id
from planaria.transport.loop import Loop
from planaria.transport.machine import (
    Answered,
    Call,
    CancelTimer,
    Cast,
    Effect,
    Event,
    Failed,
    Received,
    Reply,
    Sender,
    SetTimer,
    Stop,
    StopRequested,
    TimerFired,
)
from planaria.transport.protocol.control import Heartbeat, PeerDown, PeerUp, Ready
from planaria.transport.protocol.message import InternalRequest, Request
from planaria.transport.protocol.message import Reply as ReplyBody

ADDRESS = Address.parse("partition/LOOP/0")


class Echo(Request, tag="echo", frozen=True):
    text: str = ""


class EchoReply(ReplyBody):
    text: str


class Store(Request, tag="store", frozen=True):
    """Answered once it is durable; an eager one also before, if the loop permits that."""

    eager: bool = False


SECRET = b"secret"


class Ask(Request, tag="ask", frozen=True):
    """Request another actor's echo, and return the outcome."""

    address: Address
    timeout_ms: int = TIMEOUT_MS


class Tell(Request, tag="tell", frozen=True):
    """Cast an echo."""

    address: Address


class Later(Request, tag="later", frozen=True):
    """Answered by a timer; cancels another one, due at the same moment."""

    ms: int


class Flood(Request, tag="flood", frozen=True):
    """Answered many times."""

    replies: int
    text: str


class Misdirect(Request, tag="misdirect", frozen=True):
    """Answered to an unknown requester."""


class Whose(Request, tag="whose", frozen=True):
    """Answered with the context of the request."""


class Secretly(InternalRequest, tag="secretly", frozen=True):
    """Answered to actors only."""


class Break(Request, tag="break", frozen=True):
    """Has an unknown effect."""


class Written(Struct, frozen=True):
    """The actor's own effect and event: a write to make durable, and its completion."""

    sender: Sender


class LoopMachine:
    """Performs each request; remembers the events of its supervisor."""

    def __init__(self) -> None:
        self.heard: list[Event] = []

    def handle(self, event: Event, now: int) -> list[Effect]:
        match event:
            case Received(sender=sender, request=Whose(), context=context):
                return [Reply(sender, EchoReply(text=f"{context.client_id} {context.is_admitted}"))]
            case Received(sender=sender, request=request):
                return self._on_request(sender, request, now)
            case Answered(key=sender, reply=reply):
                return [Reply(sender, reply)]
            case Failed(key=sender, error=error):
                return [Reply(sender, error)]
            case TimerFired(key=("later", sender)):
                return [Reply(sender, EchoReply(text="late")), CancelTimer(("never", sender))]
            case TimerFired(key=("never", sender)):
                return [Reply(sender, EchoReply(text="cancelled, and fired all the same"))]
            case StopRequested():
                return [Stop("asked to")]
            case Done(sender=sender):
                return [Reply(sender, EchoReply(text="durable"))]
        self.heard.append(event)
        return []

    def _on_request(self, sender: Sender, request: Any, now: int) -> list[Effect]:
        match request:
            case Secretly():
                return [Reply(sender, EchoReply(text="done"))]
            case Echo(text=text):
                return [Reply(sender, EchoReply(text=text))]
            case Store(eager=eager):
                early = [Reply(sender, EchoReply(text="eager"))] if eager else []
                return [Written(sender), *early]
            case Ask(address=address, timeout_ms=timeout_ms):
                return [Call(sender, address, Echo(text="asked"), EchoReply, timeout_ms=timeout_ms)]
            case Tell(address=address):
                return [Cast(address, Echo(text="told")), Reply(sender, EchoReply(text="told"))]
            case Later(ms=ms):
                return [SetTimer(("later", sender), now + ms), SetTimer(("never", sender), now + ms)]
            case Flood(replies=replies, text=text):
                return [Reply(sender, EchoReply(text=text)) for _ in range(replies)]
            case Misdirect():
                return [
                    Reply(Sender((b"nobody",), 0), EchoReply(text="lost")),
                    Reply(sender, EchoReply(text="")),
                ]
        return [object()]


class Done(Struct, frozen=True):
    sender: Sender


class LoopActor(Actor):
    follows_wall_clock: ClassVar[bool] = True
    requests: ClassVar[tuple[type[Request], ...]] = (
        Echo, Store, Ask, Tell, Later, Flood, Misdirect, Whose, Secretly, Break
    )  # fmt: skip

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self.machine: LoopMachine = LoopMachine()
        self.steps_of_recovery = 0
        self.in_sync = threading.Event()
        self.may_sync = threading.Event()
        self.may_sync.set()
        self.syncs: list[int] = []
        """Number of writes made durable by each sync."""
        self.closed = False
        self._gathered: list[Sender] = []

    def start(self) -> None:
        for _ in range(self.steps_of_recovery):
            self.loop.progress()

    def perform(self, effect: Effect) -> None:
        if not isinstance(effect, Written):
            super().perform(effect)
        self._gathered.append(effect.sender)

    def end_turn(self) -> None:
        if not self._gathered:
            return
        gathered, self._gathered = self._gathered, []
        self.in_sync.set()
        assert self.may_sync.wait(TIMEOUT_MS / 1000)
        self.syncs.append(len(gathered))
        for sender in gathered:
            self.loop.dispatch(Done(sender))

    def close(self) -> None:
        self.closed = True


_FROM_ACTOR = RequestDecoder((Ready, Heartbeat, Echo))


class LoopRun:
    """The actor's thread, its control link's other end, and clients."""

    def __init__(self, run_directory: str, heartbeat_interval_ms: int = 50) -> None:
        self._exits = ExitStack()
        self.run_directory = run_directory
        self._zmq = self._exits.enter_context(zmq.Context())
        self.control = self._exits.enter_context(
            sockets.control_socket(self._zmq, control_endpoint(run_directory))
        )
        sentinel, self._supervisor_lives = os.pipe()
        self._exits.callback(os.close, sentinel)
        self.context = ActorContext(
            address=ADDRESS,
            incarnation=3,
            arguments={},
            run_directory=run_directory,
            data_directory=run_directory,
            control_endpoint=control_endpoint(run_directory),
            instance_id="test",
            secret=SECRET,
            heartbeat_interval_ms=heartbeat_interval_ms,
            parent_sentinel=sentinel,
        )
        self.actor = LoopActor(self.context)
        self.loop: Loop
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.loop = Loop(self.actor, self.context)
            self.loop.run()
        except AssertionError as error:
            self.failure = error
            # A child process would end here.
            if self.loop._server is not None:
                self.loop._server.connections.close()
            self.loop._zmq.destroy(linger=0)

    def launch(self) -> None:
        self._thread.start()

    def start(self) -> Ready:
        """Let the actor run until it is ready."""
        self.launch()
        ready = self.hear(lambda word: isinstance(word, Ready))
        assert isinstance(ready, Ready)
        return ready

    def next_word(self) -> tuple[list[bytes], Any]:
        """Return the actor's next message to its supervisor: the envelope and the request."""
        assert self.control.poll(TIMEOUT_MS), "the actor is silent"
        frames = self.control.recv_multipart()
        assert frames[0] == peer_id(ADDRESS, 3)
        return frames[1:-1], _FROM_ACTOR.decode(frames[-1])

    def hear(self, is_it: Callable[[Any], bool]) -> Any:
        while True:
            _, word = self.next_word()
            if is_it(word):
                return word

    def tell(self, *frames: bytes) -> None:
        self.control.send_multipart([peer_id(ADDRESS, 3), *frames])

    def order(self, request: Request) -> None:
        self.tell(encode_header(request))

    def client(self, kind: int = zmq.DEALER, receive_high_water_mark: int = 100_000) -> "zmq.Socket[bytes]":
        socket = self._exits.enter_context(self._zmq.socket(kind))
        socket.linger = 0
        socket.rcvhwm = receive_high_water_mark
        socket.sndhwm = 100_000
        socket.connect(endpoint_for(self.run_directory, ADDRESS, 3))
        return socket

    def peer(self, address: str, incarnation: int) -> "zmq.Socket[bytes]":
        """Return the server socket of another actor, announced by the supervisor."""
        endpoint = endpoint_for(self.run_directory, address, incarnation)
        socket = self._exits.enter_context(self._zmq.socket(zmq.ROUTER))
        socket.linger = 0
        socket.bind(endpoint)
        self.order(PeerUp(address=Address.parse(address), incarnation=incarnation, endpoint=endpoint))
        self.wait_heard(PeerUp, incarnation)
        return socket

    def peer_down(self, address: str, incarnation: int, reason: str = "killed") -> None:
        self.order(PeerDown(address=Address.parse(address), incarnation=incarnation, reason=reason))

    def wait_heard(self, kind: type[PeerUp | PeerDown], incarnation: int) -> None:
        """Wait until the machine has received it: turns go by with the heartbeats."""
        while not any(
            isinstance(event, kind) and event.incarnation == incarnation for event in self.actor.machine.heard
        ):
            self.next_word()

    def supervisor_dies(self) -> None:
        os.close(self._supervisor_lives)
        self._supervisor_lives = -1

    def join(self) -> None:
        self._thread.join(TIMEOUT_MS / 1000)
        assert not self._thread.is_alive(), "the actor does not end"

    def close(self) -> None:
        self.actor.may_sync.set()
        if self._supervisor_lives >= 0:
            self.supervisor_dies()
        if self._thread.ident is not None:
            self.join()
        self.release()

    def release(self) -> None:
        """Close the sockets of the supervisor and the clients."""
        self._exits.close()
