"""Text of the alarm of lost records, from the first reader that meets the loss until the log's start has passed it; the
report of a leader in a cluster."""

from typing import Any

from planaria.actors.partition.arguments import PartitionArguments
from planaria.actors.partition.damage import DamageCall, KnownDamage
from planaria.actors.partition.effects import Alarm, Loss
from planaria.actors.partition.roles import Undecided
from planaria.transport.addresses import CONTROLLER
from planaria.transport.machine import Call
from planaria.transport.protocol.replication import LogDamaged
from planaria.transport.protocol.topics import TopicConfig


def test_losses_are_told_until_the_logs_start_has_passed_them() -> None:
    damage = KnownDamage([Loss(10, 20, "found at the opening")])
    assert damage.alarm() == [Alarm("damage", ("records are lost: found at the opening",))]
    assert damage.on_loss(Loss(12, 20, "a part of it")) == []
    assert damage.on_loss(Loss(3, 5, "met by a reader")) == [
        Alarm("damage", ("records are lost: met by a reader", "records are lost: found at the opening"))
    ]
    assert damage.on_trimmed(5) == [Alarm("damage", ("records are lost: found at the opening",))]
    assert damage.on_trimmed(19) == []
    assert damage.on_trimmed(20) == [Alarm("damage", ())]


def role(name: Any) -> Undecided:
    found = Undecided.__new__(Undecided)
    found.name = name
    return found


def test_a_leader_in_a_cluster_calls_the_controller_until_it_is_answered() -> None:
    """A cast would be dropped: the process has perhaps never called its controller, and does not know its endpoint."""
    damage, arguments = (
        KnownDamage(),
        PartitionArguments(
            topic="T", partition=0, topic_id="t", config=TopicConfig(), directory="d", leadership="given"
        ),
    )
    assert damage.report(arguments, role("follower")) == []
    [call] = damage.report(arguments, role("leader"))
    assert isinstance(call, Call)
    assert (call.key, call.address, call.is_endless) == (DamageCall(), CONTROLLER, True)
    assert call.request == LogDamaged(topic="T", topic_id="t", partition=0)
    assert damage.report(arguments, role("leader")) == [], "it is on its way"
    assert damage.on_reported() == []
    assert len(damage.report(arguments, role("leader"))) == 1, "no other replica was in sync, perhaps"
