"""Planaria without its client library: a ZeroMQ socket and a JSON parser, available in every language.

Run it:      planaria serve            in one terminal
             python examples/raw_client.py [tcp://127.0.0.1:5570]          in another
You will see each request (->) and its reply (<-) as they are on the wire, one line each: a topic is created, an order
published and read back, and a group's member gets its partitions, commits an offset and leaves. docs/protocol.md explains
the fields; port this file to your language to have a client.
"""

import json
import sys

import zmq

ENDPOINT = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5570"
TIMEOUT_MS = 10_000

socket = zmq.Context().socket(zmq.REQ)
socket.linger = 0
socket.connect(ENDPOINT)


def ask(op, **fields):
    """Send a request, return its reply. A refusal ends the program with one line."""
    request = json.dumps({"op": op, "id": 1, **fields})
    print("->", request)
    socket.send_string(request)
    if not socket.poll(TIMEOUT_MS):
        sys.exit(f"no broker at {ENDPOINT}: is `planaria serve` running?")
    reply = socket.recv_string()
    print("<-", reply)
    answer = json.loads(reply)
    if "error" in answer:
        sys.exit(f"{op} was refused: {answer['error']['code']}: {answer['error']['message']}")
    return answer


ask("hello", version=1, client_id="raw_client.py")
ask("create_topic", topic="RAW_ORDERS", partitions=2, if_not_exists=True)
ask("metadata", topics=["RAW_ORDERS"])

# The key decides the partition: crc32("order_id_1") % 2.
order = {"key_text": "order_id_1", "value_text": json.dumps({"amount": 100}), "headers": {"source": "raw"}}
tp = ask("publish", topic="RAW_ORDERS", records=[order])["records"][0]
partition, offset = tp["partition"], tp["offset"]
ask("fetch", topic="RAW_ORDERS", partition=partition, offset=offset, max_wait_ms=1_000)

# A member joins and receives its assignment; a waiting heartbeat is answered as soon as the assignment changes.
member = ask("group_heartbeat", group="raw_billing", topics=["RAW_ORDERS"], owned={})
me = {"group": "raw_billing", "member_id": member["member_id"]}
while partition not in member["assignment"].get("RAW_ORDERS", []):
    member = ask("group_heartbeat", generation=member["generation"], owned={}, max_wait_ms=3_000, **me)
ask("group_heartbeat", generation=member["generation"], owned=member["assignment"], **me)

done = {"topic": "RAW_ORDERS", "partition": partition, "offset": offset + 1}
ask("commit_offsets", generation=member["generation"], offsets=[done], **me)
ask("fetch_offsets", group="raw_billing")
ask("leave_group", **me)
