"""At most one controller's writes take effect, however many believe that they lead."""

from hypothesis import given
from hypothesis import strategies as st

from planaria.actors.controller.cluster.leadership import Leadership, Present, Take
from planaria.actors.controller.cluster.records import Leader

NOBODY: frozenset[str] = frozenset()


class Store:
    def __init__(self) -> None:
        self.present: Present | None = None
        self.revision = 10

    def take(self, take: Take) -> bool:
        found = None if self.present is None else self.present.revision
        if found != take.expected:
            return False
        self.revision += 1
        self.present = Present(take.entry, self.revision)
        return True

    def accepts(self, guard: int | None) -> bool:
        return guard is not None and self.present is not None and self.present.revision == guard


def in_session(node: str, start_id: str = "1") -> Leadership:
    controller = Leadership(node, start_id)
    controller.on_session(is_alive=True)
    return controller


def test_the_first_of_several_leads_and_the_others_follow() -> None:
    store, a, b = Store(), in_session("a"), in_session("b")
    takes = [a.decide(NOBODY), b.decide(NOBODY)]
    assert [take is not None and store.take(take) for take in takes] == [True, False]
    for controller in (a, b):
        controller.on_entry(store.present)
        controller.on_taken(is_applied=True)
    assert (a.is_leading, b.is_leading) == (True, False)
    assert (a.leader, b.leader) == ("a", "a")
    assert a.decide(NOBODY) is None
    assert b.decide(NOBODY) is None


def test_a_suspected_leader_is_replaced_and_its_writes_are_refused() -> None:
    store, a, b = Store(), in_session("a"), in_session("b")
    take = a.decide(NOBODY)
    assert take is not None
    assert store.take(take)
    a.on_entry(store.present)
    old = a.guard_revision
    b.on_entry(store.present)
    take = b.decide(frozenset({"a"}))
    assert take is not None
    assert store.take(take)
    b.on_entry(store.present)
    assert a.is_leading, "it has not noticed"
    assert not store.accepts(old)
    assert store.accepts(b.guard_revision)


def test_a_controller_without_a_session_neither_leads_nor_tries() -> None:
    controller = in_session("a")
    controller.on_entry(Present(Leader("a", "1"), 5))
    assert controller.is_leading
    controller.on_session(is_alive=False)
    assert not controller.is_leading
    controller.on_entry(None)
    assert controller.decide(NOBODY) is None


def test_a_node_that_starts_again_replaces_its_own_earlier_start() -> None:
    controller = in_session("a", "2")
    controller.on_entry(Present(Leader("a", "1"), 5))
    assert not controller.is_leading
    assert controller.decide(NOBODY) == Take(Leader("a", "2"), 5)


def test_a_lost_answer_is_followed_by_another_try() -> None:
    controller = in_session("a")
    assert controller.decide(NOBODY) is not None
    assert controller.decide(NOBODY) is None
    controller.on_taken(is_applied=True)
    assert controller.decide(NOBODY) is not None


def test_an_orderly_end_gives_the_entry_back_and_takes_none() -> None:
    controller = in_session("a")
    controller.on_entry(Present(Leader("a", "1"), 5))
    assert controller.end() == 5
    controller.on_entry(None)
    assert controller.decide(NOBODY) is None
    assert in_session("b").end() is None


@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.booleans()), max_size=80))
def test_one_controller_at_most_can_write(steps: list[tuple[int, int, bool]]) -> None:
    store = Store()
    controllers = [in_session(node) for node in "abc"]
    for number, action, flag in steps:
        controller = controllers[number]
        if action == 0:
            controller.on_entry(store.present)
        elif action == 1:
            controller.on_session(is_alive=flag)
        elif action == 2 and (take := controller.decide(frozenset("abc") if flag else NOBODY)) is not None:
            store.take(take)
        elif action == 3:
            controller.on_taken(is_applied=True)
        elif action == 4 and flag:
            store.present = None
        assert sum(store.accepts(each.guard_revision) for each in controllers) <= 1
