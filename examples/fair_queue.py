"""A fair queue: one tenant's twenty thousand jobs do not delay another's, and limits by tenant hold over kills.

Run it:      python examples/fair_queue.py
You will see two tenants with one job each served at once behind the backlog of a noisy one, of which no more than two
jobs are ever being done, although the coordinator of the queue is killed in between.
"""

import tempfile
import time
from pathlib import Path

from planaria import Broker, ShareConsumer, ShareMessage

BACKLOG = 20_000
AT_A_TIME = 2
"""Jobs of one tenant that may be done at the same time."""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(Path(directory) / "data") as broker:
        broker.create_topic("JOBS", 1)
        broker.configure_share_group("workers", fair=True, max_in_flight_per_key=AT_A_TIME)
        with broker.client.producer() as producer:
            for number in range(BACKLOG):
                producer.publish("JOBS", number, key="noisy")
        with broker.client.share_consumer("workers", "JOBS") as worker:
            held = take(worker)
            print(
                f"{len(held)} jobs of the noisy tenant are being done, {BACKLOG - len(held)} wait", flush=True
            )
            for tenant in ("quiet", "small"):
                serve(broker, worker, tenant)
                if tenant == "quiet":
                    broker.kill("coordinator/workers")
                    print("killed coordinator/workers", flush=True)


def take(worker: ShareConsumer) -> list[ShareMessage]:
    """Take jobs until some arrive; no more of a key are given out than allowed."""
    while not (jobs := worker.poll(1.0)):
        pass
    assert len([job for job in jobs if job.key == b"noisy"]) <= AT_A_TIME
    return jobs


def serve(broker: Broker, worker: ShareConsumer, tenant: str) -> None:
    """Publish one job of a tenant, and do the jobs that arrive until it is among them."""
    broker.publish("JOBS", tenant, "urgent")
    published = time.monotonic()
    noisy = 0
    while True:
        for job in take(worker):
            job.accept()
            noisy += job.key == b"noisy"
            if job.key == tenant.encode():
                took_ms = (time.monotonic() - published) * 1000
                print(
                    f"{tenant}: done after {took_ms:.0f} ms and {noisy} jobs of the noisy tenant", flush=True
                )
                worker.flush()
                return
        worker.flush()


if __name__ == "__main__":
    main()
