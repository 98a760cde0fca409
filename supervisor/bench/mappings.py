"""Memory of an idle actor by mapping: `python -m planaria.supervisor.bench.mappings [--partitions N]`.

Starts a broker with idle partitions and prints the private memory of a partition's process, in KiB by kind of mapping, as
the mean over them. Linux only.
"""

import argparse
import re
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from ...transport.addresses import Address
from ..broker import EMBEDDED_ENDPOINT, Broker

_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)$")
SETTLING_S = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="planaria.supervisor.bench.mappings")
    parser.add_argument("--partitions", type=int, default=20)
    count = parser.parse_args().partitions
    with (
        tempfile.TemporaryDirectory(prefix="planaria-bench-") as directory,
        Broker(Path(directory) / "data", endpoint=EMBEDDED_ENDPOINT, log_level="error") as broker,
    ):
        broker.create_topic("T", count)
        time.sleep(SETTLING_S)
        actors = broker.status().actors
        tables = [
            own_kib(each.pid) for each in actors if each.pid and Address.parse(each.address).topic == "T"
        ]
    kinds = sorted({kind for table in tables for kind in table}, key=lambda kind: -tables[0][kind])
    for kind in kinds:
        print(f"{kind:24} {statistics.mean(table[kind] for table in tables):8.0f}")
    print(f"{'all':24} {statistics.mean(sum(table.values()) for table in tables):8.0f}")


def own_kib(pid: int) -> Counter[str]:
    """Return private memory by kind: anonymous memory, malloc's heap, stacks, or the name of a file."""
    found: Counter[str] = Counter()
    kind = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        mapping = _MAPPING.match(line)
        if mapping:
            name = mapping[1]
            kind = Path(name).name if name.startswith("/") else name or "anonymous"
        elif line.startswith("Private_"):
            found[kind] += int(line.split()[1])
    return Counter({kind: kib for kind, kib in found.items() if kib})


if __name__ == "__main__":
    main()
