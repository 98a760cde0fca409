"""Every file kept on disk, with its owner ended before every system call: by a kill, by a power cut, and
by a kill with a power cut after the successor has published its state.
"""

import random
import re
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from backup_life import BackupLife
from faulty_system import Died, FaultySystem
from lives_on_disk import (
    CompactionLife,
    DamagedLife,
    DataDirectoryLife,
    FlightLife,
    Life,
    LogLife,
    PartitionSleepLife,
    ReadersLife,
    SleepLife,
    SnapshotLife,
    TopicsLife,
    TruncationLife,
)
from medium import Medium
from source_tree import ROOT

LIVES: dict[str, Life] = {
    "data directory": DataDirectoryLife(),
    "topics": TopicsLife(),
    "log": LogLife(),
    "compaction": CompactionLife(),
    "truncation": TruncationLife(),
    "damage": DamagedLife(),
    "readers": ReadersLife(),
    "coordinator": SnapshotLife("groups/billing.snapshot"),
    "sleep of a group": SleepLife(),
    "sleep of a partition": PartitionSleepLife(),
    "scheduler": SnapshotLife("delayed/0.snapshot"),
    "subscriber": FlightLife(),
    "backup": BackupLife(),
}

FORMATS: dict[str, tuple[str, str]] = {
    "format.json": ("data directory", "format.json"),
    "supervisor.lock": ("data directory", "supervisor.lock"),
    "supervisor.json": ("data directory", "supervisor.json"),
    "clock.json": ("data directory", "clock.json"),
    "actors.lock": ("data directory", "actors.lock"),
    "catalog.json": ("topics", "catalog.json"),
    "topics/<topic>/topic.json": ("topics", "topic.json"),
    "topics/<topic>/<partition>/partition.json": ("topics", "partition.json"),
    "topics/.unclaimed~<id>/": ("topics", ".unclaimed~*"),
    "topics/.deleted~<id>/": ("topics", ".deleted~*"),
    "topics/<topic>/<partition>/partition.asleep": ("sleep of a partition", "partition.asleep"),
    "groups/<group>.asleep": ("sleep of a group", "billing.asleep"),
    "groups/<group>.snapshot": ("coordinator", "billing.snapshot"),
    "delayed/<number>.snapshot": ("scheduler", "0.snapshot"),
    "subscribers/<group>-<n>.flight": ("subscriber", "billing-0.flight"),
    "<base offset, 20 digits>.log": ("log", "0*.log"),
    "<base offset>.index": ("log", "0*.index"),
    ".timeindex": ("log", "0*.timeindex"),
    "<offset>.snapshot": ("log", "0*.snapshot"),
    "<offset>.start": ("log", "0*.start"),
    "checkpoint": ("log", "checkpoint"),
    "clean": ("log", "clean"),
    "sync-failed": ("damage", "sync-failed"),
    "<base offset>.torn": ("damage", "0*.torn"),
    "compaction": ("compaction", "compaction"),
    "truncation": ("truncation", "truncation"),
    "<base offset>.cleaned": ("compaction", "0*.cleaned"),
    "partition.json": ("topics", "partition.json"),
    "groups": ("readers", "groups"),
    "partition.lock": ("readers", "partition.lock"),
}
"""By the path in the tables of docs: the life that creates it, and its name there."""

UNPROMISED = {
    "topics/<topic>/<partition>/": "a folder of the log's files",
    "topics/__offsets/": "a topic",
    "subscribers/<group>-<n>.stack": "what it says is shown and then deleted",
    "backup.lock": "holds nothing that outlives a process",
    ".backup~<pid>/": "deleted by the next backup",
    ".restoring~": "a mark; the directory is restored again",
    "logs/broker.log": "never read by the broker",
}
TABLES = {"docs/operations.md": "| path | content |", "docs/storage.md": "| file | holds |"}


DEATHS = 20
"""Points of death that the ordinary run draws from each life; the long run takes every one."""

SUCCESSOR_CALLS = 20
"""A successor dies before one of its first calls: most lives make fewer until they serve."""

EVERY_DEATH = pytest.mark.parametrize(
    "takes_all", [False, pytest.param(True, marks=pytest.mark.chaos)], ids=["some", "all"]
)


def _deaths(name: str, root: Path, draw: random.Random, takes_all: bool) -> list[int]:
    """Numbers of the calls before which the owner of a life dies."""
    every = range(len(_calls(name, root).calls))
    return list(every) if takes_all or len(every) <= DEATHS else sorted(draw.sample(every, DEATHS))


def _end(name: str, root: Path, medium: Medium, die_before: int) -> list[Any]:
    done: list[Any] = []
    with pytest.raises(Died), FaultySystem(root, medium, die_before) as system:
        LIVES[name].live(root, done, system)
    return done


def _judge(name: str, root: Path, medium: Medium, done: list[Any], is_cut: bool) -> None:
    with FaultySystem(root, medium):
        LIVES[name].judge(root, done, is_cut)


def _calls(name: str, root: Path) -> FaultySystem:
    root.mkdir()
    with FaultySystem(root, Medium()) as system:
        LIVES[name].live(root, [], system)
    return system


@EVERY_DEATH
@pytest.mark.parametrize("name", LIVES)
def test_a_kill_before_any_call_loses_nothing(tmp_path: Path, name: str, seed: int, takes_all: bool) -> None:
    for die_before in _deaths(name, tmp_path / "all", random.Random(seed), takes_all):
        root = tmp_path / str(die_before)
        root.mkdir()
        medium = Medium()
        done = _end(name, root, medium, die_before)
        _judge(name, root, medium, done, is_cut=False)


@EVERY_DEATH
@pytest.mark.parametrize("name", LIVES)
def test_a_power_cut_before_any_call_loses_nothing_acknowledged(
    tmp_path: Path, name: str, seed: int, takes_all: bool
) -> None:
    draw = random.Random(seed)
    for die_before in _deaths(name, tmp_path / "all", draw, takes_all):
        for attempt in range(2):
            root = tmp_path / f"{die_before}-{attempt}"
            root.mkdir()
            medium = Medium()
            done = _end(name, root, medium, die_before)
            medium.lose(draw)
            _judge(name, root, medium, done, is_cut=True)


@EVERY_DEATH
@pytest.mark.parametrize("name", LIVES)
def test_what_a_successor_has_shown_is_durable(tmp_path: Path, name: str, seed: int, takes_all: bool) -> None:
    """It is killed with the cache intact, so its successor may find files that the medium lacks."""
    draw = random.Random(seed)
    for die_before in _deaths(name, tmp_path / "all", draw, takes_all):
        root = tmp_path / str(die_before)
        root.mkdir()
        medium = Medium()
        done = _end(name, root, medium, die_before)
        _judge(name, root, medium, done, is_cut=False)
        medium.lose(draw)
        _judge(name, root, medium, done, is_cut=True)


@EVERY_DEATH
@pytest.mark.parametrize("name", LIVES)
def test_a_power_cut_while_a_successor_starts_loses_nothing_acknowledged(
    tmp_path: Path, name: str, seed: int, takes_all: bool
) -> None:
    """The successor relies on files that the medium lacks, and is cut off before any of its own calls."""
    draw = random.Random(seed)
    for die_before in _deaths(name, tmp_path / "all", draw, takes_all):
        root = tmp_path / str(die_before)
        root.mkdir()
        medium = Medium()
        done = _end(name, root, medium, die_before)
        with suppress(Died), FaultySystem(root, medium, draw.randrange(SUCCESSOR_CALLS)):
            LIVES[name].judge(root, list(done), is_cut=False)
        medium.lose(draw)
        _judge(name, root, medium, done, is_cut=True)


@pytest.mark.parametrize("name", LIVES)
def test_a_life_makes_the_files_that_it_stands_for(tmp_path: Path, name: str) -> None:
    touched = _calls(name, tmp_path / "all").touched
    for life, pattern in FORMATS.values():
        assert life != name or any(fnmatch(found, pattern) for found in touched), pattern


def _documented(text: str, head: str) -> set[str]:
    rows = text[text.index(head) :].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_file_that_the_documents_name_is_here() -> None:
    documented = set[str]()
    for file, head in TABLES.items():
        documented |= _documented((ROOT / file).read_text(), head)
    assert documented == FORMATS.keys() | UNPROMISED.keys()
