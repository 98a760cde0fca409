"""The surroundings of the shell commands in the documentation, and the commands that do not run.

A command is named by its page and its beginning; the longest name counts.
"""

from pathlib import Path

from documents import blocks_of
from planaria import Client
from shell_blocks import Step, Terminal

NOT_RUN = {
    "quickstart.md: pip install": "installs from an index",
    "console.md: pip install": "installs from an index",
    "tracing.md: pip install": "installs from an index",
    "operations.md: python3 -m venv": "makes the environment of the next command",
    "operations.md: .venv/bin/pip install": "installs from an index; the test's environment has the package",
    "README.md: pip install": "installs from an index",
    "README.md: make ": "runs all tests",
    "cluster.md: planaria serve --set etcd_ca": "an excerpt; tests/metadata has members of etcd with certificates",
    "cluster.md: etcdutl": "tests/cluster/test_etcd_restore.py runs it, with three members",
    "workers.md: planaria worker MODULE:APP": "a synopsis",
    "security.md: ": "tests/integration/test_security_walk.py runs them, against a broker with authentication",
    "mirrors.md: ": "tests/integration/test_failback.py runs them, with two brokers",
    "http.md: curl -H": "needs authentication: test_the_gateway_decides_what_a_credential_may_do sends it",
    "http.md: curl -u": "needs authentication: the same test",
    "performance.md: PLANARIA_COMPILE=1 pip install": "installs from an index",
    "performance.md: planaria bench": "takes minutes, and its exit code depends on the machine",
    "performance.md: python -m planaria.supervisor.bench.costs": "takes minutes: tests/supervisor/test_bench_costs.py",
    "performance.md: python -m planaria.supervisor.bench.sleeping": "takes minutes",
    "performance.md: python -m pytest tests/controller": "is a test itself",
}
SLOW = {
    "README.md: planaria demo",
    "README.md: planaria chaos",
    "performance.md: python -m planaria.supervisor.bench.mappings",
    "cluster.md: planaria serve --node",
    "cluster.md: planaria topic create",
}
"""Commands of `make chaos`."""

BEFORE = {
    "operations.md: planaria find ORDERS --key": """
client.create_topic("ORDERS", 2)
customer = {"customer": {"id": 7}}
client.publish("ORDERS", customer, key="order-17", headers={"source": "web", "correlation-id": "order-17"})
""",
    "operations.md: planaria lag    ": """
with client.consumer("billing", ["ORDERS"], auto_offset_reset="earliest") as consumer:
    assert consumer.poll(100)
    consumer.commit()
""",
    "cluster.md: planaria topic alter __offsets": """
client.create_topic("CLUSTER", 1)
with client.consumer("cluster", ["CLUSTER"]) as consumer:
    consumer.poll(0)
""",
    "replay.md: planaria group pause": """
with client.consumer("billing", ["HISTORY"], auto_offset_reset="earliest") as consumer:
    assert consumer.poll(100)
    consumer.commit()
""",
    'http.md: curl --json \'{"records"': 'client.create_topic("ORDERS", 1)',
    'http.md: curl --json \'{"topics"': 'client.create_topic("JOBS", 1); client.publish("JOBS", "job")',
    "workers.md: planaria worker": """
for topic in ("ORDERS", "PAYMENTS", "ORDERS.dlq"):
    client.create_topic(topic, 1)
(folder / "shop").mkdir()
(folder / "shop/billing.py").write_text(page_code + '''
def pay(order):
    print("paid", order.amount)
    return {"paid": order.amount}
async def mail(payment): ...
''')
""",
    "workers.md: planaria deploy billing": """
terminal.interrupt("planaria worker")
(folder / "etc/shop/billing.env").write_text("CURRENCY=EUR")
""",
    "workers.md: planaria deploy logs": 'client.publish("ORDERS", {"customer": "ann", "amount": 100})',
    "delivery.md: planaria inflight": """
import time
(folder / "failing.py").write_text("def charge(message): raise ValueError('no amount')")
client.create_topic("ORDERS", 1)
client.publish("ORDERS", {}, key="order-17")
terminal.run(Step("planaria deploy billing ORDERS --handler failing:charge --set backoff_ms=30s", [], 0))
while not any(actor.retrying.count for actor in client.status().actors):
    time.sleep(0.05)
""",
    "delivery.md: planaria dlq list": """
terminal.run(Step("planaria deploy delete billing --yes", [], 0))
(folder / "shop.py").write_text("def charge(message): pass")
client.create_topic("ORDERS.dlq", 1)
client.publish(
    "ORDERS.dlq", {}, headers={"dead-letter-topic": "ORDERS", "dead-letter-reason": "TimeoutError: away"}
)
""",
    "delivery.md: planaria quota set reports": 'client.delete_topic("ORDERS"); client.delete_topic("ORDERS.dlq")',
    "dead-letters.md: planaria dlq list": """
import dl_billing, time
client.create_topic("DL-ORDERS", 1)
client.create_topic("DL-ORDERS.dlq", 1)
terminal.run(Step("planaria worker dl_billing:app", [], 0))
client.publish("DL-ORDERS", {"amount": -1})
while not list(client.read("DL-ORDERS.dlq")):
    time.sleep(0.05)
terminal.interrupt("planaria worker")
""",
    "dead-letters.md: planaria dlq redrive DL-ORDERS.dlq --dry-run": """
import sys
(folder / "dl_billing.py").write_text(page_code.replace("raise planaria.Reject", "print"))
del sys.modules["dl_billing"]
""",
}
"""Code that runs before a command, with `client`, `folder`, `terminal`, and `page_code`: the first Python block."""

CHANGED = {
    "operations.md: planaria restore": {"var/lib/planaria": "var/lib/restored"},
    'http.md: curl --json \'{"member_id"': {'"first_offset": 17': '"first_offset": 0'},
    "delivery.md: planaria dlq show": {"0:17": "0:0"},
    "delivery.md: planaria dlq purge": {"purge": "purge --yes"},
    "README.md: planaria chaos": {"--duration 60": "--duration 5"},
    "README.md: planaria demo": {"planaria demo": "planaria demo --duration 5"},
    "workers.md: planaria worker": {"--processes 4": "--processes 1"},
    "workers.md: planaria deploy billing": {"--workers 3": "--workers 1"},
    "exactly-once.md: planaria worker": {"--processes 4": "--processes 1"},
    "operations.md: planaria lag --watch": {"--watch": "--watch --group billing"},
}


def named(page: str, command: str, names: object) -> str | None:
    """Return the longest name of a command among these."""
    text = f"{page}: {command}"
    found = (name for name in names if text.startswith(name))  # type: ignore[attr-defined]
    return max(found, key=len, default=None)


def is_run(page: Path, step: Step, *, slow: bool) -> bool:
    """Return True for a command that runs: in the ordinary tests, or among the slow ones."""
    if named(page.name, step.command, NOT_RUN) is not None:
        return False
    return (named(page.name, step.command, SLOW) is not None) == slow


def run_step(terminal: Terminal, page: Path, step: Step) -> None:
    """Run a command of a page, with the code that belongs before it."""
    code = BEFORE.get(named(page.name, step.command, BEFORE) or "")
    if code is not None:
        page_code = next((block.text for block in blocks_of(page) if block.kind == "python"), "")
        names = {"terminal": terminal, "folder": terminal.folder, "page_code": page_code, "Step": Step}
        with Client(terminal.endpoint) as client:
            exec(code, {**names, "client": client})
    terminal.run(step, changed=CHANGED.get(named(page.name, step.command, CHANGED) or ""))
