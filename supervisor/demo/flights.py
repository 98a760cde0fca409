"""The demo's data: departures from New York's airports in 2013, in the order in which the aircraft left."""

import csv
import gzip
import io
from collections import Counter
from importlib.resources import files

import msgspec

PACKAGE = (__package__ or "").partition(".")[0]


class Departure(msgspec.Struct, frozen=True):
    """One row: its key (the aircraft), its number among the aircraft's departures, and the row itself."""

    tail_number: str
    number: int
    row: dict[str, str]


def load_departures() -> list[Departure]:
    """Return all rows of the extract that ships with the package."""
    packed = (files(PACKAGE) / "examples" / "data" / "flights.csv.gz").read_bytes()
    seen: Counter[str] = Counter()
    departures: list[Departure] = []
    for row in csv.DictReader(io.StringIO(gzip.decompress(packed).decode())):
        tail_number = row["tailnum"]
        departures.append(Departure(tail_number, seen[tail_number], row))
        seen[tail_number] += 1
    return departures
