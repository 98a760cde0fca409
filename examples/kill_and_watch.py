"""Kill any actor under load and watch it restart.

Run it:      python examples/kill_and_watch.py
You will see a partition, the group's coordinator, the gateway and the controller killed with SIGKILL while a producer
publishes, the time until each served again, and that every acknowledged message was consumed in order.
"""

import tempfile
import time

from planaria import Broker

VICTIMS = ("partition/EVENTS/0", "coordinator/readers", "gateway/0", "controller")
EVENTS_A_ROUND = 500


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Broker(directory) as broker:
        broker.create_topic("EVENTS", 1)
        consumer = broker.consumer("readers", ["EVENTS"], auto_offset_reset="earliest")
        consumer.poll(timeout=1)  # joins, so that there is a coordinator to kill
        published, consumed = 0, []
        with broker.producer() as producer, consumer:
            for victim in VICTIMS:
                killed = broker.kill(victim)
                started = time.monotonic()
                for _ in range(EVENTS_A_ROUND):
                    producer.publish("EVENTS", {"n": published})
                    published += 1
                producer.flush()
                print(
                    f"killed {victim} (pid {killed.pid}, incarnation {killed.incarnation}):"
                    f" {EVENTS_A_ROUND} more events acknowledged after {(time.monotonic() - started) * 1000:.0f} ms"
                )
            while len(consumed) < published:
                consumed += [message.data["n"] for message in consumer.poll(timeout=10)]
        while any(actor.state != "ready" for actor in broker.status().actors):
            time.sleep(0.01)
        for actor in broker.status().actors:
            print(f"    {actor.address:<24} incarnation {actor.incarnation} {actor.state}")
    print(f"published {published}, consumed {len(consumed)}, in order: {consumed == list(range(published))}")


if __name__ == "__main__":
    main()
