"""Row of the bench for handlers: in the processes of `planaria worker`, against those that the broker hosts.

The worker imports this module and runs `app`; the broker runs the same function. Both read the same messages, in turns.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ...transport.application import App
from ...transport.client.messages import Message
from ..broker import Broker
from .ceilings import Ceilings
from .rows import TOPIC, Row, Scale, fresh_broker

VALUE = b"v" * 100
TURNS = 3
POLL_S = 0.01
HOSTED_GROUP, WORKER_GROUP = "hosted", "worker"

app = App()


@app.subscribe(TOPIC, group=WORKER_GROUP)
def handle(message: Message) -> None:
    """Do nothing: the rate is that of the process around the handler."""


def worker_row(scale: Scale, _: Ceilings) -> Row:
    """Measure records handled per second by one process of a worker, from its first commit to its last."""
    messages = scale.messages // 6
    hosted, worker = [], []
    with fresh_broker() as broker:
        with broker.producer() as producer:
            for _number in range(messages):
                producer.publish(TOPIC, VALUE)
        for _turn in range(TURNS):
            hosted.append(_hosted_rate(broker, messages))
            worker.append(_worker_rate(broker, messages))
    return Row(
        name="handle, in a process of a worker",
        figure=max(worker),
        unit="messages/s",
        bar=0.9 * max(hosted),
        is_higher_better=True,
        ceiling=max(hosted),
        detail=f"100 B, 1 partition, best of {TURNS}; bar: 0.9 of a hosted handler, the ceiling here",
    )


def _hosted_rate(broker: Broker, messages: int) -> float:
    subscription = broker.subscribe(HOSTED_GROUP, TOPIC, handler=f"{__name__}:handle")
    assert subscription is not None
    return _rate(broker, HOSTED_GROUP, messages, subscription.stop)


def _worker_rate(broker: Broker, messages: int) -> float:
    command = [sys.executable, "-m", __name__.partition(".")[0], "worker", f"{__name__}:app"]
    data = Path(broker.status().data_directory).parent / "worker"
    process = subprocess.Popen(
        [*command, "--connect", broker.endpoint, "--data", str(data), "--log-level", "error"]
    )

    def stop() -> None:
        process.terminate()
        process.wait()

    return _rate(broker, WORKER_GROUP, messages, stop)


def _rate(broker: Broker, group: str, messages: int, stop: Callable[[], None]) -> float:
    """Return the records per second between the first commit that is seen and the last, and delete the group."""
    first, began_s = 0, 0.0
    try:
        while (
            done := sum(broker.group_offsets(group).values() if _exists(broker, group) else ())
        ) < messages:
            if done and not first:
                first, began_s = done, time.perf_counter()
            time.sleep(POLL_S)
        took_s = time.perf_counter() - began_s
    finally:
        stop()
    broker.delete_group(group)
    return (messages - first) / took_s


def _exists(broker: Broker, group: str) -> bool:
    return group in broker.list_groups()


HANDLER_ROWS = {"worker": worker_row}
