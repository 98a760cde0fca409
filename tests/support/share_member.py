"""A member of a share group in a process of its own, to be killed: acquires, decides at random, acknowledges, reports.

    python -m share_member ENDPOINT GROUP TOPIC SEED       (run as a file)

`# count record` reports the delivery count of a record. Before an acknowledgement is sent, `? verdict record...`; after
its answer, `! verdict record...` for those that it was not too late for. So the records accepted, and possibly accepted,
are known whenever the process is killed.
"""

import random
import sys

from planaria import Client, ShareMessage
from planaria.transport.protocol.errors import PlanariaError

VERDICTS = ("accept", "accept", "accept", "accept", "accept", "accept", "fail", "release", "reject")


def main(endpoint: str, group: str, topic: str, seed: str) -> None:
    chance = random.Random(seed)
    with Client(endpoint) as client, client.share_consumer(group, topic) as consumer:
        while True:
            try:
                messages = consumer.poll(0.5, max_messages=chance.choice((1, 10, 100)))
            except PlanariaError:
                continue
            by_verdict: dict[str, list[ShareMessage]] = {}
            for message in messages:
                tell("#", str(message.delivery_count), [message])
            for message in messages:
                by_verdict.setdefault(chance.choice(VERDICTS), []).append(message)
            for verdict, some in by_verdict.items():
                tell("?", verdict, some)
                try:
                    consumer.acknowledge(some, verdict)  # type: ignore[arg-type]
                    refused = {(each.partition, each.offset) for each in consumer.flush()}
                except PlanariaError:
                    continue
                tell("!", verdict, [each for each in some if (each.partition, each.offset) not in refused])


def tell(sign: str, verdict: str, messages: list[ShareMessage]) -> None:
    tps = [f"{message.partition}:{message.offset}" for message in messages]
    print(sign, verdict, *tps, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
