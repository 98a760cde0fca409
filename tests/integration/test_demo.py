"""`planaria demo` on a real broker: its counts balance, and its screen can be written as a picture."""

import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from command_line import planaria
from live_trees import actor
from planaria import Broker
from planaria.supervisor.chaos.history import History
from planaria.supervisor.chaos.probes import Probes
from planaria.supervisor.demo import _served_again_s
from planaria.supervisor.demo.flights import load_departures
from planaria.supervisor.demo.stream import TOPIC, FlightStream

pytestmark = pytest.mark.processes


def test_the_demo_loses_nothing_and_its_screen_is_written_as_svg(tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    done = planaria("demo", "--duration", "3", "--record", str(picture))
    assert (done.returncode, done.stderr) == (0, "")
    shown = "".join(ET.parse(picture).getroot().itertext()).replace("\xa0", " ")
    assert shown.count("killed ") >= 4
    assert "nothing lost, nothing out of order" in shown
    assert "nothing lost, nothing out of order" in done.stdout


def test_a_partition_that_is_killed_after_its_last_departure_is_asked_whether_it_serves(
    data_dir: Path,
) -> None:
    """On a slow machine the stream ends while actors are being killed."""
    with Broker(data_dir, hang_timeout_ms=60_000) as broker:
        broker.create_topic(TOPIC, 1)
        stream = FlightStream(broker.producer(), load_departures()[:1], 0.0, History())
        stream.start()
        stream.join()
        victim = actor(broker.client, f"partition/{TOPIC}/0")
        broker.kill(victim.address)
        probes = Probes(broker.client, History(), TOPIC)
        assert _served_again_s(victim, time.monotonic(), stream, broker, probes) is not None
        probes.close()
        assert broker.client.list_offsets(TOPIC, 0, "latest").offset == 1


@pytest.mark.chaos
def test_a_lost_site_is_replaced_and_comes_back(tmp_path: Path) -> None:
    done = planaria("demo", "--mirror", "--duration", "8", "--no-color", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "nothing lost, nothing out of order, both sites the same" in done.stdout


def test_a_picture_that_cannot_be_written_is_refused_before_the_demo_runs(tmp_path: Path) -> None:
    done = planaria("demo", "--record", str(tmp_path / "missing" / "demo.svg"))
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr
    assert done.stdout == ""
