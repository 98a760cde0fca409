"""A partition in a process of its own, with the test as its supervisor: a control socket that receives its readiness.

Used by the tests of the partition's process, and by its measurements. Loopback only; the process is gone after `close`.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import zmq

from labelled_folders import label_partition
from patience import TIMEOUT_MS
from planaria.transport.actor import ActorContext
from planaria.transport.addresses import Address, as_text, from_text
from planaria.transport.codec import decode_reply, encode_header
from planaria.transport.endpoints import control_endpoint
from planaria.transport.protocol.control import Heartbeat, Ready, Stop
from planaria.transport.protocol.message import InternalRequest, Reply, Request
from planaria.transport.protocol.topics import TopicConfig
from planaria.transport.request_context import ContextFrames
from warm_start import WarmPopen

SECRET = b"secret"
PROGRAM = """
import sys, msgspec
from planaria.transport.actor import ActorContext
from planaria.transport.addresses import from_text
from planaria.actors.partition import process
process.main(msgspec.json.decode(sys.argv[1], type=ActorContext, dec_hook=from_text))
"""


class PartitionProcess:
    """Starts, kills and restarts partition ORDERS/0 on one data directory."""

    def __init__(self, data_directory: Path, run_directory: Path, config: TopicConfig | None = None) -> None:
        self.data_directory = data_directory
        self.run_directory = run_directory
        self.config = config or TopicConfig()
        label_partition(data_directory / "topics" / "ORDERS" / "0")
        self.incarnation = 0
        self.endpoint = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.zmq = zmq.Context()
        self.control = self.zmq.socket(zmq.ROUTER)
        self.control.linger = 0
        self.control.bind(control_endpoint(str(run_directory)))
        self._client: zmq.Socket[bytes] | None = None

    def start(self, program: str = PROGRAM) -> None:
        """Start the next incarnation and wait until it is ready."""
        self.launch(program)
        self.wait_ready()

    def launch(self, program: str = PROGRAM) -> None:
        self.incarnation += 1
        context = ActorContext(
            address=Address.parse("partition/ORDERS/0"),
            incarnation=self.incarnation,
            arguments={
                "topic": "ORDERS",
                "partition": 0,
                "topic_id": "t1",
                "config": msgspec.to_builtins(self.config),
                "directory": "topics/ORDERS/0",
            },
            run_directory=str(self.run_directory),
            data_directory=str(self.data_directory),
            control_endpoint=control_endpoint(str(self.run_directory)),
            instance_id="i1",
            secret=SECRET,
        )
        argument = msgspec.json.encode(context, enc_hook=as_text)
        self.process = WarmPopen([sys.executable, "-c", program, argument], stderr=subprocess.PIPE)

    def wait_ready(self) -> None:
        decode = msgspec.msgpack.Decoder(Ready | Heartbeat, dec_hook=from_text).decode
        while self.control.poll(TIMEOUT_MS):
            message = decode(self.control.recv_multipart()[1])
            if isinstance(message, Ready) and message.incarnation == self.incarnation:
                assert message.endpoint is not None
                self.endpoint = message.endpoint
                self._connect()
                return
        self.kill()
        raise AssertionError("the partition did not become ready")

    def _connect(self) -> None:
        if self._client is not None:
            self._client.close(linger=0)
        self._client = self.new_client()

    def new_client(self) -> "zmq.Socket[bytes]":
        client = self.zmq.socket(zmq.DEALER)
        client.linger = 0
        client.connect(self.endpoint)
        return client

    @property
    def client(self) -> "zmq.Socket[bytes]":
        assert self._client is not None
        return self._client

    def send(self, request: Request, payload: Sequence[Any] = (), as_json: bool = False) -> None:
        # Requests of actors have the context of one.
        context = [ContextFrames(SECRET).own] if isinstance(request, InternalRequest) else []
        self.client.send_multipart([*context, encode_header(request, as_json), *payload])

    def receive(self, reply_type: type[Reply]) -> tuple[Any, list[bytes]]:
        """Return the next reply, or ErrorBody, and its payload."""
        assert self.client.poll(TIMEOUT_MS), "no reply"
        header, *payload = self.client.recv_multipart()
        return decode_reply(header, reply_type), payload

    def ask(
        self, request: Request, reply_type: type[Reply], payload: Sequence[Any] = (), as_json: bool = False
    ) -> tuple[Any, list[bytes]]:
        self.send(request, payload, as_json)
        return self.receive(reply_type)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.wait()

    def stop(self) -> int:
        name = f"partition/ORDERS/0.{self.incarnation}".encode()
        self.control.send_multipart([name, encode_header(Stop(deadline_ms=0))])
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return the exit code; its standard error output is in `exit_reports`."""
        assert self.process is not None
        _, error = self.process.communicate(timeout=TIMEOUT_MS / 1000)
        self.exit_reports = error.decode()
        return self.process.returncode

    def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.kill()
        if self._client is not None:
            self._client.close()
        self.control.close()
        self.zmq.term()

    def __enter__(self) -> "PartitionProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
