"""A console served over HTTP in a thread of the test, as `planaria console` serves it, and a client of it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from patience import TIMEOUT_S
from planaria import Broker
from planaria.supervisor.console.guard import OWN_HEADER
from planaria.supervisor.console.server import console_server, listen

OWN = {OWN_HEADER: "1"}
"""The header of requests that change something."""


@contextmanager
def served_console(endpoint: str, server_key: str | None = None) -> Iterator[str]:
    """Serve a console of the broker at `endpoint`; yield its URL."""
    listener = listen("127.0.0.1", 0)
    is_up = threading.Event()
    server = console_server(endpoint, server_key, ["127.0.0.1", "localhost"], is_up.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert is_up.wait(TIMEOUT_S)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def pid_of_console(broker: Broker) -> int:
    """Return the process of the console that runs beside a broker: the child of its keeper."""
    [keeper] = [actor.pid for actor in broker.status().actors if actor.address == "console"]
    [child] = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    return int(child)


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)
