"""A work queue: many workers share one partition, each job is done by one of them, impossible jobs become dead letters.

Run it:      python examples/work_queue.py
You will see a worker die while it holds a job, which another one gets half a second after the connection was lost (the
broker's `disconnect_grace_ms`); a job that fails once and is done the second time; and a job that always fails, which
ends in the dead-letter topic.
"""

import multiprocessing
import tempfile
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from planaria import Broker, Client, Reject, ShareMessage

JOBS = 12
LOCK_MS = 1_000
"""Lock of the worker that dies: its job returns when the lock expires, should the loss of the connection stay unnoticed.

The others get half a minute for a job: an expired lock gives the job to a second worker.
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(Path(directory) / "data") as broker:
        broker.create_topic("JOBS", 1)
        broker.create_topic("JOBS.dead", 1)
        broker.configure_share_group("workers", max_deliveries=3, dead_letter="JOBS.dead")
        for number in range(JOBS):
            broker.publish("JOBS", None, {"number": number})

        lose_a_worker(broker.endpoint)
        names = ("ann", "bob", "cid")
        workers = [threading.Thread(target=work, args=(broker.endpoint, name), daemon=True) for name in names]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

        with broker.consumer(partitions=[("JOBS.dead", 0)], auto_offset_reset="earliest") as consumer:
            (letter,) = consumer.poll(10.0)
        headers = letter.headers or {}
        print(f"dead: job {letter.data['number']}, {headers['dead-letter-reason']}")


def work(endpoint: str, name: str) -> None:
    """Take one job after the other, until none has arrived for longer than the dead worker's lock lasts."""
    with Client(endpoint) as client, client.share_consumer("workers", "JOBS") as consumer:
        while jobs := consumer.poll(3 * LOCK_MS / 1000, max_messages=1):
            (job,) = jobs
            with suppress(Reject, DatabaseAway), job:  # accepted at the end of the block, unless it raises
                do(job, name)


def do(job: ShareMessage, name: str) -> None:
    number = job.data["number"]
    if number == 5:
        raise Reject("this job is impossible")
    if number == 7 and job.delivery_count == 1:
        raise DatabaseAway("not now")
    print(f"{name} did job {number} (delivery {job.delivery_count})\n", end="", flush=True)


class DatabaseAway(Exception):
    """The job has failed; the next worker that takes it does it."""


def lose_a_worker(endpoint: str) -> None:
    """Start a worker that takes the first job and is killed."""
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=take_one, args=(endpoint, theirs))
    worker.start()
    print(f"a worker died with job {ours.recv()} in its hands", flush=True)
    worker.kill()
    worker.join()


def take_one(endpoint: str, pipe: Connection) -> None:
    client = Client(endpoint)
    (job,) = client.share_consumer("workers", "JOBS", lock_ms=LOCK_MS).poll(30.0, max_messages=1)
    pipe.send(job.data["number"])
    threading.Event().wait()


if __name__ == "__main__":
    main()
