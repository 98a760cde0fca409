"""Preparations of the fork server: every actor's decoder is loaded, and holes between objects are filled."""

import importlib
import platform
import subprocess
import sys

import pytest

from patience import TIMEOUT_S
from planaria.transport.actor import Actor

ACTORS = {
    "partition": "PartitionProcess",
    "coordinator": "CoordinatorActor",
    "controller": "ControllerActor",
}


@pytest.mark.parametrize(("module", "name"), ACTORS.items())
def test_what_an_actor_decodes_with_is_there_before_the_fork(module: str, name: str) -> None:
    actor = getattr(importlib.import_module(f"planaria.actors.{module}.process"), name)
    assert issubclass(actor, Actor)
    assert actor.decoder is not None


FRAGMENTED = """
size = 64
with_holes = [bytes(size - 33) for _ in range(20_000)]
del with_holes[::7]
from planaria.supervisor import preload
fresh = [id(block) for block in [bytes(size - 33) for _ in range(200)]]
print(len({address // 4096 for address in fresh}))
"""


def test_new_objects_lie_side_by_side_after_the_holes_are_filled() -> None:
    """In a process of its own, as the fork server is one: the heap of this one has holes of other tests."""
    pages = subprocess.run(
        [sys.executable, "-c", FRAGMENTED], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    )
    assert int(pages.stdout) < 20, "200 blocks of 64 bytes fill four pages"


CHURN = """
import resource
from planaria.supervisor import preload
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    batches = [bytearray(500_000) for _ in range(3)]
    del batches
before = faults()
for _ in range(20):
    batches = [bytearray(500_000) for _ in range(3)]
    del batches
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have no mallopt")
def test_the_memory_of_large_batches_is_kept_for_the_next() -> None:
    faults = subprocess.run(
        [sys.executable, "-c", CHURN], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    )
    assert int(faults.stdout) < 1_000, "one fault for each of their 7,300 pages if the kernel had taken them"
