"""A work queue by priority, with jobs that expire and a rate by key; and one that does only the newest job of each key.

Run it:      python examples/shaped_queue.py
You will see the urgent job before the others, none of the jobs whose time is over, and no key done faster than its rate;
then, of a hundred prices of five shares, only the five newest. The coordinator of each queue is killed on the way.
"""

import tempfile
import time

from planaria import Broker, ShareConsumer, ShareMessage

JOBS = 20
RATE = 15
"""Jobs of one key in a second."""


def take(worker: ShareConsumer, count: int) -> list[ShareMessage]:
    """Do so many jobs."""
    done: list[ShareMessage] = []
    while len(done) < count:
        for job in worker.poll(1.0, max_messages=1):
            job.accept()
            done.append(job)
    assert worker.flush() == []
    return done


def kill(broker: Broker, address: str) -> None:
    broker.kill(address)
    print(f"killed {address}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(directory) as broker:
        broker.create_topic("JOBS", 1)
        broker.create_topic("PRICES", 1)
        broker.configure_share_group("workers", rate_per_key=RATE, expired="skip")
        broker.configure_share_group("quotes", coalesce="latest")

        for number in range(JOBS):
            broker.publish("JOBS", "bulk", number, priority=1)
        broker.publish("JOBS", "late", "too late", expires_at=int(time.time() * 1000) - 1)
        broker.publish("JOBS", "urgent", "urgent", priority=9)
        with broker.client.share_consumer("workers", "JOBS") as worker:
            (first,) = take(worker, 1)
            print(f"first: {first.data}")
            kill(broker, "coordinator/workers")
            began = time.monotonic()
            done = [job.data for job in take(worker, JOBS)]
            # One second's worth comes at once.
            is_slow = time.monotonic() - began > (JOBS - RATE) / RATE - 0.1
            print(f"then: {done == list(range(JOBS))}, at the rate of the key: {is_slow}")

        for number in range(100):
            broker.publish("PRICES", f"share-{number % 5}", number)
            if number == 50:
                with broker.client.share_consumer("quotes", "PRICES") as reader:
                    print(f"newest of the first 51: {sorted(job.data for job in take(reader, 5))}")
                kill(broker, "coordinator/quotes")
        with broker.client.share_consumer("quotes", "PRICES") as reader:
            print(f"newest of the rest: {sorted(job.data for job in take(reader, 5))}")
            print(f"older ones are left: {len(reader.poll(0.2)) > 0}")


if __name__ == "__main__":
    main()
