"""Publishes messages for consumers, and reads a number of them."""

from typing import Any

from planaria.transport.client.client import Client


def fill(client: Client, count: int, partition: int = 0, start: int = 0) -> None:
    with client.producer(batch_records=10) as producer:
        for number in range(start, start + count):
            producer.publish("T", {"n": number}, key=b"k", partition=partition)


def read(consumer: Any, count: int) -> list[Any]:
    messages: list[Any] = []
    while len(messages) < count:
        messages += consumer.poll(10)
    return messages
