"""The OpenAPI document is whole, and the bridge does as it says: schemathesis sends requests made from it.

Schemathesis is not among the packages for developers, because it brings thirty others. Without it that test is skipped.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from patience import TIMEOUT_S
from planaria import Broker
from planaria.actors.http.openapi import document
from planaria.actors.http.operations import OPERATIONS, match

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
MANUAL = Path(__file__).parents[2] / "docs" / "http.md"


def test_every_operation_is_described_and_every_reference_leads_somewhere() -> None:
    found = json.loads(document("0"))
    described = {(method.upper(), path) for path, methods in found["paths"].items() for method in methods}
    assert described == {(each.method, each.path) for each in OPERATIONS}
    names = [each["operationId"] for methods in found["paths"].values() for each in methods.values()]
    assert len(names) == len(set(names))
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(found)))
    assert references <= set(found["components"]["schemas"])
    for hidden in ("producer_id", "greeted", "client_id"):
        assert f'"{hidden}"' not in json.dumps(found["paths"])


def test_the_manual_names_every_operation() -> None:
    shown = MANUAL.read_text()
    for operation in OPERATIONS:
        place = operation.path.format(topic="T", partition="P", group="G")
        assert f"`{operation.method} {place}" in shown, operation.path
        assert match(operation.method, operation.path.replace("{partition}", "0")) is not None


@pytest.mark.processes
@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="needs schemathesis: pip install schemathesis")
def test_the_bridge_does_what_its_document_says(data_dir: Path) -> None:
    with Broker(data_dir, http_endpoint="127.0.0.1:*", http_bridge=True) as broker:
        broker.create_topic("T", 1)
        found = subprocess.run(
            [
                str(SCHEMATHESIS),
                "run",
                f"{broker.http_endpoint}/openapi.json",
                "--phases=coverage,fuzzing",
                "--max-examples=5",
                "--seed=1",
                # The schema cannot say that a record has one value, or that a name is one.
                "--exclude-checks=positive_data_acceptance",
                # A busy machine draws examples slowly.
                "--suppress-health-check=all",
                f"--request-timeout={TIMEOUT_S}",
                "--no-color",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=3 * TIMEOUT_S,
            cwd=data_dir.parent,
        )
        # Its own errors, such as a time limit on a busy machine, say nothing about the bridge.
        assert "Failures:" not in found.stdout, found.stdout[-10_000:]
        assert "passed" in found.stdout, found.stdout[-10_000:] + found.stderr[-1_000:]
        assert [each.address for each in broker.status().actors if each.restarts] == []
