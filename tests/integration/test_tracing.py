"""Spans of OpenTelemetry: of clients for threads and for tasks, of hosted handlers and of workers."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import planaria.aio
from live_trees import until
from patience import TIMEOUT_S
from planaria import Broker, UnknownTopic
from worker_process import WorkerProcess

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from planaria import otel

pytestmark = pytest.mark.processes

OWN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SHOP = """
import json, os
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
import planaria.otel
from planaria import App, Context, Message

out = open(os.path.join(os.path.dirname(__file__), f"spans-{os.getpid()}"), "a", buffering=1)
provider = TracerProvider()
provider.add_span_processor(
    SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\\n"))
)
planaria.otel.instrument(provider)
app = App("shop")
failed = set()

@app.subscribe("ORDERS", group="worker", backoff_ms=[20])
async def charge_later(order: Message, context: Context) -> None:
    context.publish("PAID", order.value)

@app.subscribe("OTHERS", group="others")
def ignore(order: Message) -> None: ...

def charge(order: Message, context: Context) -> None:
    if order.offset not in failed:
        failed.add(order.offset)
        raise ValueError("declined")
    context.publish("PAID", order.value)
"""


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    made, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    otel.instrument(provider)
    try:
        yield made
    finally:
        otel.uninstrument()


def spans(exporter: InMemorySpanExporter) -> dict[str, list[ReadableSpan]]:
    found: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        found.setdefault(span.name, []).append(span)
    exporter.clear()
    return found


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def written(folder: Path) -> list[dict[str, Any]]:
    """Return the finished spans of handlers; a line may be half written."""
    lines = [line for file in folder.glob("spans-*") for line in file.read_text().split("\n")[:-1]]
    return [json.loads(line) for line in lines]


def test_clients_for_threads_make_spans_by_the_conventions(
    broker: Broker, exporter: InMemorySpanExporter
) -> None:
    broker.create_topic("ORDERS")
    with broker.producer() as producer:
        producer.publish("ORDERS", b"a", headers={"source": "web"}).result(TIMEOUT_S)
        producer.publish("ORDERS", b"b", headers={"traceparent": OWN}).result(TIMEOUT_S)
        with pytest.raises(UnknownTopic):
            producer.publish("NONE", b"")
    with broker.client.consumer(
        "billing", "ORDERS", auto_offset_reset="earliest", auto_commit=False
    ) as consumer:
        messages = consumer.poll(TIMEOUT_S)
        while len(messages) < 2:
            messages += consumer.poll(TIMEOUT_S)
        for attempt in range(2):
            with pytest.raises(ValueError, match="no"), otel.processing(messages[0], "billing"):
                raise ValueError(f"no {attempt}")
        consumer.commit()
    found = spans(exporter)
    created, sent = found["publish ORDERS"]
    assert (created.kind, sent.kind) == (SpanKind.PRODUCER, SpanKind.CLIENT)
    assert created.attributes is not None
    assert dict(created.attributes) == {
        "messaging.system": "planaria",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "ORDERS",
        "messaging.destination.partition.id": "0",
        "planaria.message.offset": 0,
    }
    [refused] = found["publish NONE"]
    assert refused.status.status_code == StatusCode.ERROR
    assert refused.attributes is not None
    assert refused.attributes["error.type"] == "UNKNOWN_TOPIC"
    context = created.get_span_context()
    assert context is not None
    assert messages[0].headers["source"] == "web"
    assert (
        messages[0].headers["traceparent"].startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
    )
    assert messages[1].headers["traceparent"] == OWN, "never overwritten"
    assert linked(sent) == [int(OWN.split("-")[2], 16)]
    received = [span_id for span in found["poll ORDERS"] for span_id in linked(span)]
    assert received == [context.span_id, *linked(sent)]
    first, second = found["process ORDERS"]
    assert first.parent is not None
    assert first.parent.span_id == context.span_id, "a retry belongs to the same trace"
    first_context = first.get_span_context()
    assert first_context is not None
    assert linked(second) == [context.span_id, first_context.span_id], "and is linked to the attempt before"
    assert first.attributes is not None
    assert (first.kind, first.attributes["error.type"]) == (SpanKind.CONSUMER, "ValueError")
    [commit] = found["commit"]
    assert commit.attributes is not None
    assert commit.attributes["messaging.operation.type"] == "settle"
    assert commit.attributes["messaging.consumer.group.name"] == "billing"


def test_clients_for_tasks_and_work_queues_make_spans(broker: Broker, exporter: InMemorySpanExporter) -> None:
    broker.create_topic("JOBS")

    async def work() -> None:
        async with planaria.aio.connect(broker.endpoint) as client:
            await client.publish("JOBS", b"1")
            async with client.work("workers", "JOBS") as worker:
                jobs = await worker.poll(TIMEOUT_S)
                assert "traceparent" in jobs[0].headers
                await worker.acknowledge(jobs)
            async with client.consumer("readers", "JOBS", auto_offset_reset="earliest") as consumer:
                await consumer.poll(TIMEOUT_S)
                await consumer.commit()

    asyncio.run(work())
    found = spans(exporter)
    assert len(found["publish JOBS"]) == 1
    assert [len(span.links) for span in found["poll JOBS"]] == [1, 1]
    groups = [(span.attributes or {})["messaging.consumer.group.name"] for span in found["poll JOBS"]]
    assert groups == ["workers", "readers"]
    assert (found["accept JOBS"][0].attributes or {})["messaging.batch.message_count"] == 1
    assert found["commit"]


def test_handlers_make_spans_in_processes_of_the_broker_and_of_a_worker(
    broker: Broker, exporter: InMemorySpanExporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    for topic in ("ORDERS", "OTHERS", "PAID"):
        broker.create_topic(topic)
    monkeypatch.syspath_prepend(tmp_path)
    broker.subscribe("hosted", "ORDERS", handler="shop:charge", backoff_ms=[20])
    with WorkerProcess(tmp_path, broker.endpoint) as worker:
        broker.publish("ORDERS", None, b"1")
        [published] = spans(exporter)["publish ORDERS"]
        context = published.get_span_context()
        assert context is not None

        def look() -> bool:
            found = [span["name"] for span in written(tmp_path)]
            return found.count("process ORDERS") == 3 and found.count("create PAID") == 2

        until(look, "both handlers have handled the order, one of them twice")
        assert worker.stop() == 0
    made = {span["context"]["span_id"]: span for span in written(tmp_path)}
    for group, attempts in (("hosted", [1, 2]), ("worker", [1])):
        of_group = [
            span for span in made.values() if span["attributes"].get("messaging.consumer.group.name") == group
        ]
        processed = [span for span in of_group if span["name"] == "process ORDERS"]
        assert [span["attributes"]["planaria.delivery.attempt"] for span in processed] == attempts
        assert {span["context"]["trace_id"] for span in processed} == {f"0x{context.trace_id:032x}"}
        assert any(span["attributes"]["messaging.operation.type"] == "settle" for span in of_group)
    paid = [span for span in made.values() if span["name"] == "create PAID"]
    assert [made[span["parent_id"]]["name"] for span in paid] == ["process ORDERS"] * 2
