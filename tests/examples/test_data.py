"""The shipped data set matches examples/data/README.md."""

import csv
import gzip
import hashlib
import io
from collections import Counter
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "examples" / "data"


@pytest.fixture(scope="module")
def content() -> bytes:
    return gzip.decompress((DATA / "flights.csv.gz").read_bytes())


@pytest.fixture(scope="module")
def flights(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_content_has_the_stated_checksum(content: bytes) -> None:
    assert hashlib.sha256(content).hexdigest() in (DATA / "README.md").read_text()


def test_file_is_small_and_carries_no_time() -> None:
    compressed = (DATA / "flights.csv.gz").read_bytes()
    assert len(compressed) < 1_000_000
    assert compressed[4:8] == bytes(4)


def test_every_flight_has_a_tail_number(flights: list[dict[str, str]]) -> None:
    aircraft = Counter(flight["tailnum"] for flight in flights)
    assert len(flights) == 24_000
    assert "" not in aircraft
    assert len(aircraft) == 3_098


def test_columns_are_the_described_ones(flights: list[dict[str, str]]) -> None:
    table = (DATA / "README.md").read_text().split("| column |")[1]
    described = {word for line in table.splitlines() for word in line.split("|")[1:2] if "`" in word}
    names = {name.strip(" `") for cell in described for name in cell.split(",")}
    assert names == set(flights[0])
