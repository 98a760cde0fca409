"""Output of the workers of a deployment, from every node that runs.

Each node is asked for its own part over a client of its own, which may end up at another node when its own one dies: an
answer counts only from the node that was asked.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from msgspec import UNSET

from ...transport.endpoints import are_tls, is_tls
from ...transport.protocol.deployments import (
    OutputPosition,
    ReadDeploymentOutput,
    ReadDeploymentOutputReply,
    WorkerOutput,
)
from ...transport.protocol.errors import PlanariaError, ProtocolError
from ...transport.protocol.session import Metadata, MetadataReply
from .connection import CLIENT_ID, attached, credentials
from .failures import CommandFailed, describe
from .output import error_console

if TYPE_CHECKING:
    from ...transport.client.client import Client

POLL_S = 0.5
ASK_TIMEOUT_MS = 5_000

LinesOption: TypeAlias = Annotated[
    int,
    typer.Option(
        "--lines", "-n", min=0, metavar="N", help="Number of lines to print of each worker, the last ones."
    ),
]


class Source:
    """The output of one node, read from where it was read before."""

    def __init__(self, node: str, client: "Client") -> None:
        self.client = client
        self.fault = ""
        """The reason why it did not answer the last time."""
        self.has_workers = False
        self._node = node
        self._positions: dict[int, int] = {}
        self._is_known = False

    def show(self, group: str, worker: int | None, lines: int, *, is_following: bool) -> None:
        """Print all that there is. Raises ProtocolError when it is refused."""
        unfinished: dict[int, str] = {}
        try:
            for output in self._read(group, worker, lines):
                self._print(output.worker, output.text)
                unfinished[output.worker] = output.rest
            if not is_following:
                for number, text in unfinished.items():
                    self._print(number, text)
        except PlanariaError as error:
            if isinstance(error, ProtocolError) and not error.retriable:
                raise
            self._note(describe(error))
        sys.stdout.flush()

    def _print(self, worker: int, text: str) -> None:
        for line in text.removesuffix("\n").split("\n") if text else ():
            print(f"{self._node}/{worker} | {line}" if self._node else f"{worker} | {line}")

    def _note(self, fault: str) -> None:
        if fault and not self.fault:
            error_console().print(f"node {self._node or 'here'} does not answer: {fault}")
        self.fault = fault

    def _read(self, group: str, worker: int | None, lines: int) -> Iterator[WorkerOutput]:
        is_complete = False
        while not is_complete:
            at = [OutputPosition(worker=each, position=found) for each, found in self._positions.items()]
            request = ReadDeploymentOutput(
                group=group, worker=worker, lines=None if self._is_known else lines, positions=at
            )
            reply = self.client._ask(request, ReadDeploymentOutputReply)
            if reply.node != self._node:
                self._note("another node has answered")
                return
            yield from reply.outputs
            self._positions |= {each.worker: each.position for each in reply.outputs}
            is_complete = reply.is_complete
        self._is_known = True
        self.has_workers = bool(self._positions)
        self._note("")


def show_output(connect: str, group: str, worker: int | None, lines: int, *, is_following: bool) -> None:
    """Print the last lines of each worker, then those that are written, if `is_following`. Raises CommandFailed."""
    sources: dict[str, Source] = {}
    with ExitStack() as clients:
        entrance = clients.enter_context(attached(connect))
        while True:
            for node, endpoint in _nodes(entrance, over_tls=are_tls(connect)).items():
                if node not in sources:
                    own = None if endpoint is None else clients.enter_context(_client_at(endpoint, connect))
                    sources[node] = Source(node, own or entrance)
                sources[node].show(group, worker, lines, is_following=is_following)
            if not is_following:
                break
            time.sleep(POLL_S)
    if any(each.fault for each in sources.values()):
        raise CommandFailed("the output is incomplete")
    if not any(each.has_workers for each in sources.values()):
        which = "" if worker is None else f" {worker}"
        raise CommandFailed(f"no worker{which} of {group!r} has run")


def _nodes(client: "Client", *, over_tls: bool) -> dict[str, str | None]:
    """Return the nodes that run and their endpoints. A broker on one machine has no name, and answers at the entrance."""
    nodes = client._ask(Metadata(topics=[]), MetadataReply).nodes
    if nodes is UNSET:
        return {"": None}
    return {each.node: each.endpoint for each in nodes if is_tls(each.endpoint) == over_tls}


def _client_at(endpoint: str, connect: str) -> "Client":
    from ...transport.client.client import Client  # noqa: PLC0415

    options = credentials(connect)
    return Client(endpoint, client_id=CLIENT_ID, request_timeout_ms=ASK_TIMEOUT_MS, **options)
