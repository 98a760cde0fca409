"""Acts of operators over the supervisor's own socket: kept until the gateway has them, whatever dies between."""

from planaria.supervisor.operator_acts import MAX_ACTS
from planaria.transport.protocol.control import AwaitActs, AwaitActsReply
from planaria.transport.protocol.operations import Kill, Revive
from supervision import World, broker_like

OPERATOR = b"\0\0\0\0\1"


def acts(reply: object) -> list[tuple[int, str, str]]:
    assert isinstance(reply, AwaitActsReply)
    return [(act.number, type(act.request).__name__, act.error) for act in reply.acts]


def world() -> World:
    made = World(broker_like())
    made.ready("controller")
    made.ready("gateway/0")
    return made


def test_an_act_answers_the_gateway_and_is_kept_until_it_is_confirmed() -> None:
    tree = world()
    assert tree.ask(AwaitActs(after=0)) is None
    tree.ask(Kill(address="gateway/0"), peer=OPERATOR)
    assert [acts(each.body) for each in tree.replies if isinstance(each.body, AwaitActsReply)] == [
        [(1, "Kill", "")]
    ]
    assert acts(tree.ask(AwaitActs(after=0))) == [(1, "Kill", "")], "the next gateway has nothing of it"
    tree.ask(Revive(address="gateway/7"), peer=OPERATOR)
    assert acts(tree.ask(AwaitActs(after=1))) == [(2, "Revive", "UNKNOWN_ACTOR")]
    assert tree.ask(AwaitActs(after=2)) is None


def test_what_comes_through_the_gateway_is_not_recorded_again_and_too_many_are_forgotten() -> None:
    tree = world()
    tree.ask(Revive(address="gateway/0"), peer=b"gateway/0.1")
    assert tree.ask(AwaitActs(after=0)) is None
    for _ in range(MAX_ACTS + 2):
        tree.ask(Revive(address="gateway/0"), peer=OPERATOR)
    found = acts(tree.ask(AwaitActs(after=0)))
    assert (len(found), found[0][0]) == (MAX_ACTS, 3)
