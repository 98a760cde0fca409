"""Preparations of the fork server: every actor's decoder is loaded, and holes between objects are filled."""

import importlib

import pytest

from planaria.supervisor import preload
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


def test_new_objects_lie_side_by_side_after_the_holes_are_filled() -> None:
    size = 64
    with_holes = [bytes(size - 33) for _ in range(20_000)]
    del with_holes[::7]
    preload.fill_pools()
    fresh = [id(block) for block in [bytes(size - 33) for _ in range(200)]]
    pages = {address // 4096 for address in fresh}
    assert len(pages) < 20, "200 blocks of 64 bytes fill four pages"
