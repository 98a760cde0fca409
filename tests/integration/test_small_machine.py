"""A machine without capacity for everything: new actors are refused by name, existing ones start or report the reason."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from patience import TIMEOUT_S

pytestmark = pytest.mark.processes


BROKER = """
import json, resource, sys
from collections import Counter
from planaria import Broker
from planaria.transport.protocol.errors import PlanariaError

data, descriptors = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

def refusal(action):
    try:
        action()
    except PlanariaError as error:
        return str(error)

with Broker(data, quarantine_retry_ms=0, hang_timeout_ms=60_000) as broker:
"""

FILL = """
    huge = refusal(lambda: broker.create_topic("HUGE", 10_000))
    for number in range(100):
        full = refusal(lambda: broker.create_topic(f"T{number}", 5))
        if full:
            break
        broker.client.publish(f"T{number}", number, partition=4)
    consumer = refusal(lambda: broker.client.consumer("g", [f"T{number - 1}"]).poll(10))
    hosted = refusal(lambda: broker.subscribe("g", "T0", handler="builtins:print", workers=9))
    print(json.dumps({"topics": number, "refusals": [huge, full, consumer, hosted]}))
"""

COUNT = """
    actors = broker.status().actors
    while {"starting", "recovering", "stopped"} & {actor.state for actor in actors}:
        actors = broker.status().actors
    states = dict(Counter(actor.state for actor in actors))
    reasons = sorted({actor.reason for actor in actors if actor.state == "quarantined"})
    broker.client.publish("T0", "after", partition=0)
    print(json.dumps({"states": states, "reasons": reasons, "restarts": sum(a.restarts for a in actors)}))
"""


def run(body: str, data: Path, descriptors: int) -> dict[str, object]:
    program = [sys.executable, "-c", BROKER + body, str(data), str(descriptors)]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_broker_is_filled_to_its_limit_and_starts_again_under_a_smaller_one(data_dir: Path) -> None:
    filled = run(FILL, data_dir, 256)
    refusals = filled["refusals"]
    assert isinstance(refusals, list)
    for refusal in refusals:
        assert "LIMIT_REACHED" in refusal, refusals
    assert "descriptors, 256 a process (RLIMIT_NOFILE)" in refusals[1]
    topics = filled["topics"]
    assert isinstance(topics, int)
    assert topics == 6, "as many as 34 actors allow"

    again = run(COUNT, data_dir, 256)
    assert again == {"states": {"ready": 32}, "reasons": [], "restarts": 0}

    smaller = run(COUNT, data_dir, 128)
    assert smaller["states"] == {"ready": 14, "quarantined": 18}
    (reason,) = smaller["reasons"]  # type: ignore[misc]
    assert "the limits of this machine allow no more than 14 actors: descriptors, 128 a process" in reason
