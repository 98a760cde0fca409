"""Deployments of a real broker: kills, a restart of everything, updates, output, secrets."""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from command_line import planaria
from live_trees import actor, pid_of, read_topic, until, until_reborn
from planaria import Broker

pytestmark = pytest.mark.processes

SHOP = """
import os
from planaria import Context, Message

print("loaded with", os.environ["BANK"], flush=True)

def charge(order: dict, context: Context) -> None:
    print(f"charged {order['number']}", flush=True)
    context.publish("PAYMENTS", {"number": order["number"], "version": VERSION}, key=context.message.key)
"""


def write_shop(folder: Path, version: int) -> None:
    (folder / "shop.py").write_text(SHOP.replace("VERSION", str(version)))


def deploy(broker: Broker, *arguments: str) -> str:
    done = planaria("deploy", *arguments, "--connect", broker.endpoint)
    assert done.returncode == 0, done.stderr
    return done.stdout


def publish(broker: Broker, numbers: range) -> None:
    with broker.producer() as producer:
        for number in numbers:
            producer.publish("ORDERS", {"number": number}, key=f"k{number % 20}")


def versions(broker: Broker) -> dict[int, int]:
    found = [message.data for message in read_topic(broker.client, "PAYMENTS")]
    assert not found or max(Counter(each["number"] for each in found).values()) == 1, "once"
    return {each["number"]: each["version"] for each in found}


def until_deployed(broker: Broker, version: int, workers: int) -> None:
    def look() -> bool:
        actors = [each for each in broker.status().actors if each.address.startswith("deployed/")]
        return len(actors) == workers and all(each.state == "ready" for each in actors)

    until(look, f"{workers} workers of version {version}")


def test_a_deployment_survives_kills_and_restarts_and_is_updated_without_loss(
    own_broker: Broker, tmp_path: Path
) -> None:
    for topic in ("ORDERS", "PAYMENTS"):
        own_broker.create_topic(topic, 4)
    write_shop(tmp_path, 1)
    secret = tmp_path / "bank.env"
    secret.write_text("BANK=first-secret\n")
    folder = ["--app-dir", str(tmp_path)]
    deploy(
        *(
            own_broker,
            "billing",
            "ORDERS",
            "--handler",
            "shop:charge",
            "--workers",
            "2",
            *folder,
            "--no-check",
        ),
        *("--set", "delivery=exactly-once", "--env-from-file", str(secret), "--env", "TOKEN=second-secret"),
    )
    publish(own_broker, range(100))
    until(lambda: len(versions(own_broker)) == 100, "the orders are handled")
    listing = deploy(own_broker, "list", "--json")
    assert "TOKEN" in listing
    assert "secret" not in listing

    before = actor(own_broker.client, "deployed/billing/1")
    publish(own_broker, range(100, 300))
    os.kill(pid_of(own_broker.client, "deployed/billing/1"), signal.SIGKILL)
    until_reborn(own_broker.client, before)
    os.kill(own_broker.supervisor_pid, signal.SIGKILL)
    until(lambda: len(versions(own_broker)) == 300, "the broker has started its deployment again")

    publish(own_broker, range(300, 500))
    write_shop(tmp_path, 2)
    deploy(own_broker, "update", "billing", "--python", sys.executable, "--no-check")
    until(lambda: len(versions(own_broker)) == 500, "all are handled")
    until(lambda: both_are_of(own_broker, 2), "both workers have the new code")
    publish(own_broker, range(500, 600))
    until(lambda: len(versions(own_broker)) == 600, "version 2 handles the rest")
    found = versions(own_broker)
    assert {found[number] for number in range(300)} == {1}
    assert {found[number] for number in range(500, 600)} == {2}
    for key in range(20):
        of_key = [found[number] for number in range(key, 600, 20)]
        assert of_key == sorted(of_key), "no order is handled by version 1 after one by version 2"

    output = deploy(own_broker, "logs", "billing", "-n", "1000")
    assert {line[:4] for line in output.splitlines()} == {"1 | ", "2 | "}
    assert output.count("charged 599\n") == 1
    assert "loaded with first-secret" in output

    deploy(own_broker, "scale", "billing", "1")
    until_deployed(own_broker, 2, 1)
    deploy(own_broker, "pause", "billing")
    until_deployed(own_broker, 2, 0)
    deploy(own_broker, "rollback", "billing")
    deploy(own_broker, "resume", "billing")
    until_deployed(own_broker, 3, 1)
    deploy(own_broker, "delete", "billing", "--yes")
    until_deployed(own_broker, 0, 0)
    assert own_broker.describe_group("billing").members == []


def both_are_of(broker: Broker, version: int) -> bool:
    data = Path(broker.status().data_directory)
    counts = [
        (data / f"logs/deployments/billing-{number}.log").read_text().count("loaded with")
        for number in (1, 2)
    ]
    # The first start; worker 1 after its death; both after the broker's; both with the new code.
    return counts >= [4, 3] and all(
        each.state == "ready" for each in broker.status().actors if each.address.startswith("deployed/")
    )


def test_a_handler_that_cannot_be_loaded_is_not_deployed(own_broker: Broker, tmp_path: Path) -> None:
    own_broker.create_topic("ORDERS", 1)
    (tmp_path / "shop.py").write_text("def charge(order: 'Order'): ...")
    for handler, complaint in [
        ("shop:charge", "name 'Order' is not defined"),
        ("shop:nothing", "has no attribute 'nothing'"),
        ("nowhere:f", "No module named 'nowhere'"),
    ]:
        arguments = ["billing", "ORDERS", "--handler", handler, "--app-dir", str(tmp_path)]
        done = planaria("deploy", *arguments, "--connect", own_broker.endpoint)
        assert done.returncode == 1
        assert complaint in done.stderr
    done = planaria("deploy", "update", "billing", "--connect", own_broker.endpoint)
    assert "there is no deployment 'billing'" in done.stderr
