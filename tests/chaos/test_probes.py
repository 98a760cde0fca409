"""When a probe takes an actor for restarted."""

from types import SimpleNamespace
from typing import Any

from planaria.supervisor.chaos.history import History
from planaria.supervisor.chaos.probes import Probes


def test_an_actor_of_another_supervisor_is_another_process_though_it_counts_from_one_again() -> None:
    address = "partition/__offsets/2"
    victim: Any = SimpleNamespace(address=address, pid=7, incarnation=1, state="ready")
    looks = [
        [victim],
        [],
        [SimpleNamespace(address=address, pid=8, incarnation=1, state="starting")],
        [SimpleNamespace(address=address, pid=8, incarnation=1, state="ready")],
    ]
    client: Any = SimpleNamespace(
        producer=lambda **_options: None, status=lambda: SimpleNamespace(actors=looks.pop(0))
    )
    Probes(client, History()).actor(victim)
    assert looks == []
