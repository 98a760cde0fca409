"""The smallest complete program: a broker, a topic, two orders, a consumer.

Run it:      python examples/quickstart.py
You will see the first order of a partition and the offset from which its group continues. The data stays in
`planaria-data` in the working directory: run it again and the group continues where it stopped.
"""

from planaria import Broker

broker = Broker()
broker.create_topic("ORDERS", 3)
broker.publish("ORDERS", "order_id_1", {"amount": 100})
broker.publish("ORDERS", "order_id_2", {"amount": 200})
broker.subscribe("payment_group", "ORDERS", "consumer_1")
msg = broker.consume("payment_group", "consumer_1")
offset = broker.get_offset("payment_group", "consumer_1")

print(f"consumed {msg.key!r}: {msg.data}, from partition {msg.partition} at offset {msg.offset}")
print(f"the group goes on at offset {offset}")
