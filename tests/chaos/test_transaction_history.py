"""The checker of transactions: a true history passes, and each anomaly is caught by its name."""

from planaria.supervisor.chaos.history import LogEntry
from planaria.supervisor.chaos.transaction_history import Attempt, Findings, Session, check_stage

SOURCE = [LogEntry(0, 0, "a:0"), LogEntry(0, 1, "a:1"), LogEntry(1, 0, "b:0")]
TARGET = [LogEntry(0, 0, "a:0|t1"), LogEntry(0, 1, "a:1|t2"), LogEntry(1, 0, "b:0|t1")]
COMMITTED = {0: 2, 1: 1}
SESSIONS = [Session(transactional_id="x", session=1, ready_at=5)]


def attempt(name: str, *wrote: str, **changes: object) -> Attempt:
    given = {"session": 1, "ending_at": 10, "outcome": "ok", **changes}
    values = tuple(f"{value}|{name}" for value in wrote)
    return Attempt(name=name, transactional_id="x", wrote=values, **given)  # type: ignore[arg-type]


GOOD = [attempt("t1", "a:0", "b:0"), attempt("t2", "a:1")]


def found(
    attempts: list[Attempt] = GOOD,
    target: list[LogEntry] = TARGET,
    sessions: list[Session] = SESSIONS,
    committed: dict[int, int] = COMMITTED,
) -> set[str]:
    return kinds(check_stage(attempts, sessions, SOURCE, committed, target))


def kinds(findings: Findings) -> set[str]:
    assert findings.is_clean == (not findings.examples)
    return {kind for kind, count in findings.counts.items() if count}


def test_a_true_history_is_clean() -> None:
    assert found() == set()


def test_attempts_that_left_nothing_are_allowed() -> None:
    left_nothing = [
        attempt("t3", "a:0", outcome="fail"),
        attempt("t4", "a:0", outcome="info"),
        attempt("t5", "a:0", outcome="info", ending_at=None),
    ]
    assert found([*GOOD, *left_nothing]) == set()


def test_an_unknown_outcome_may_have_been_a_commit() -> None:
    assert found([GOOD[0], attempt("t2", "a:1", outcome="info")]) == set()


def test_an_aborted_read() -> None:
    assert found([GOOD[0], attempt("t2", "a:1", outcome="fail")]) == {"aborted_read"}
    assert found([GOOD[0], attempt("t2", "a:1", outcome="info", ending_at=None)]) == {"aborted_read"}


def test_a_lost_committed_write() -> None:
    assert found(target=[TARGET[0], TARGET[2]], committed={0: 1, 1: 1}) == {"lost"}


def test_half_a_transaction_across_partitions() -> None:
    unknown = [attempt("t1", "a:0", "b:0", outcome="info"), GOOD[1]]
    assert found(unknown, target=TARGET[:2], committed={0: 2, 1: 0}) == {"torn"}


def test_offsets_behind_the_output() -> None:
    assert found(committed={0: 1, 1: 1}) == {"apart"}


def test_offsets_ahead_of_the_output() -> None:
    assert found([GOOD[0]], target=[TARGET[0], TARGET[2]]) == {"apart"}


def test_a_zombie_that_committed() -> None:
    assert found(sessions=[*SESSIONS, Session(transactional_id="x", session=2, ready_at=9)]) == {"zombie"}


def test_a_successor_of_another_id_or_of_later_is_no_crime() -> None:
    later = Session(transactional_id="x", session=2, ready_at=11)
    other = Session(transactional_id="y", session=2, ready_at=9)
    assert found(sessions=[*SESSIONS, later, other]) == set()


def test_an_input_that_became_two_outputs() -> None:
    again = attempt("t3", "b:0")
    assert found([*GOOD, again], target=[*TARGET, LogEntry(1, 1, "b:0|t3")]) == {"duplicated"}


def test_the_same_value_twice() -> None:
    assert found(target=[*TARGET, LogEntry(1, 1, "b:0|t1")]) == {"duplicated"}


def test_an_order_by_key_that_was_not_kept() -> None:
    assert found(target=[TARGET[1], TARGET[0], TARGET[2]]) == {"reordered"}


def test_a_value_that_nobody_wrote() -> None:
    assert found([GOOD[0]]) == {"phantom"}
