"""Random lives of whole trees. World checks at each step that no child has two processes; here: that every stop ends,
and that every child not given up comes back.
"""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from example_counts import examples
from planaria.supervisor.child_spec import DynamicSpec, SupervisorSpec
from planaria.supervisor.restart import RestartPolicy
from planaria.transport.addresses import Address
from planaria.transport.protocol.control import EVERYBODY, StartChild, StopChild
from planaria.transport.protocol.operations import Kill, Revive
from supervision import World, broker_like, worker

DYNAMIC = ("partition/T/0", "partition/T/1", "partition/T/2", "coordinator/g")
FIXED = ("controller", "gateway/0", "a", "b", "x", "y")
EXITS = ("killed by SIGKILL", "exit code 0", "exit code 1")


def nested(strategy: Any) -> SupervisorSpec:
    inner = SupervisorSpec(name="inner", strategy="rest_for_one", children=(worker("x"), worker("y")))
    partitions = DynamicSpec(name="partitions", kind="partition", max_starting=2)
    return SupervisorSpec(
        name="root",
        strategy=strategy,
        children=(worker("a"), inner, partitions, worker("b", directory=EVERYBODY)),
    )


trees = st.sampled_from([broker_like(), nested("one_for_one"), nested("rest_for_one"), nested("one_for_all")])
anybody = st.sampled_from(DYNAMIC + FIXED)
steps = st.one_of(
    st.tuples(st.just("ready"), anybody),
    st.tuples(st.just("die"), anybody, st.sampled_from(EXITS)),
    st.tuples(st.just("silence"), anybody),
    st.tuples(st.just("pass_time"), st.sampled_from([0, 1, 100, 500, 5_000, 40_000, 400_000])),
    st.tuples(
        st.just("start_child"),
        st.sampled_from(DYNAMIC),
        st.sampled_from(["permanent", "transient", "temporary"]),
    ),
    st.tuples(st.just("stop_child"), anybody),
    st.tuples(st.just("kill"), anybody),
    st.tuples(st.just("revive"), anybody),
)


def take(world: World, step: tuple[Any, ...]) -> None:
    name, *arguments = step
    address = arguments[0]
    is_alive = address in world.processes
    match name:
        case "ready" if is_alive:
            world.ready(address)
        case "die" if is_alive:
            world.die(address, arguments[1])
        case "silence":
            world.silent ^= {address}
        case "pass_time":
            world.pass_time(address)
        case "start_child":
            world.ask(StartChild(spec=worker(address, restart=arguments[1])))
        case "stop_child":
            world.ask(StopChild(address=Address.parse(address)))
        case "kill":
            world.ask(Kill(address=address))
        case "revive":
            world.ask(Revive(address=address))


def reap_the_killed(world: World) -> None:
    """Play the kernel: each process that was sent SIGKILL dies."""
    sent = len(world.signals)
    killed = {address for address, signal in world.signals if signal == "SIGKILL"}
    for address in sorted(killed & set(world.processes)):
        world.die(address)
    # Only now: the first death may end the tree while the others are still to die.
    del world.signals[:sent]


@given(tree=trees, life=st.lists(steps, max_size=60), obedient=st.booleans())
def test_every_stop_ends(tree: SupervisorSpec, life: list[tuple[Any, ...]], obedient: bool) -> None:
    world = World(tree, policy=RestartPolicy(intensity=2))
    for step in life:
        if world.has_stopped:
            return
        take(world, step)
    world.stop()
    launched = len(world.launched)
    for _ in range(100):
        if world.has_stopped:
            break
        if obedient:
            for address in [name for name in world.asked_to_stop if name in world.processes]:
                world.die(address, "exit code 0")
        world.pass_time(5_000)
        reap_the_killed(world)
    assert world.has_stopped
    assert len(world.launched) == launched
    # Every requester of a stop_child has been answered.
    assert not any(child.stop_waiters for child in world.machine.tree)


@examples(40)
@given(tree=trees, life=st.lists(steps, max_size=60))
def test_whatever_is_not_given_up_comes_back(tree: SupervisorSpec, life: list[tuple[Any, ...]]) -> None:
    world = World(tree, policy=RestartPolicy(intensity=1_000_000))
    for step in life:
        take(world, step)
    world.silent.clear()
    for _ in range(100):
        reap_the_killed(world)
        for address in [name for name in world.asked_to_stop if name in world.processes]:
            if world.state(address) == "stopping":
                world.die(address, "exit code 0")
        for address in list(world.processes):
            if world.state(address) in ("starting", "recovering"):
                world.ready(address)
        world.pass_time(30_000)
    if world.failed is not None:
        # A fixed child failed too often before the tree was up.
        return
    states = {
        child.address: child.shown_state for child in world.machine.tree if child.spec.restart == "permanent"
    }
    assert set(states.values()) == {"ready"}, states
    assert world.up is not None
