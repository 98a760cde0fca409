"""The matrix of rights: an example of each public request, and the rights that it needs. Written from docs/security.md,
without the broker's own table.

`KIND:RIGHT|RIGHT` is a need: one of these rights on a resource of that kind. A request is permitted if all its needs
are met. A set of rights is that of a principal, each on all resources of its kind that the examples name.
"""

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from planaria.transport.security.rights import Rule

ADMIN = "cluster:admin"
RIGHTS = (
    "topic:produce",
    "topic:consume",
    "topic:queue",
    "topic:manage",
    "group:consume",
    "group:queue",
    "group:manage",
    "transaction:produce",
    "cluster:manage",
    "cluster:operate",
    ADMIN,
)
RESOURCES = {"topic": "topic:T*", "group": "group:G*", "transaction": "transaction:X*", "cluster": "cluster"}

_READ = "topic:consume|queue"
_ANY_TOPIC = "topic:produce|consume|queue|manage"
_SPAN = {"topic": "T", "partition": 0}
_NOWHERE = {"topic": "T.none", "partition": 0}
_OF_A_TRANSACTION = {
    "producer_id": 1 << 40,
    "producer_epoch": 0,
    "partitions": {"T": [0]},
    "groups": ["G"],
}
_UNKNOWN = {"principal": "nobody"}

_EXAMPLES: list[tuple[str, str, dict[str, Any]]] = [
    # op, needs, fields; none of them changes what the others find
    ("metadata", _ANY_TOPIC, {"topics": ["T"]}),
    ("publish", "topic:produce", {"topic": "T", "partition": 0, "records": [{"value_text": "x"}]}),
    ("produce", "topic:produce", _SPAN | {"acks": "all"}),
    ("init_producer", "", {}),
    ("init_producer", "transaction:produce", {"transactional_id": "X"}),
    ("add_to_transaction", "topic:produce group:consume", _OF_A_TRANSACTION),
    ("end_transaction", "topic:produce group:consume", _OF_A_TRANSACTION | {"commit": True}),
    ("list_transactions", "cluster:operate", {}),
    ("fetch", _READ, _SPAN | {"offset": 0, "max_wait_ms": 0}),
    ("fetch", "cluster:operate", {"topic": "__offsets", "partition": 0, "offset": 0, "max_wait_ms": 0}),
    ("list_offsets", _READ, _SPAN | {"at": "latest"}),
    ("list_offsets", "cluster:operate", {"topic": "__audit", "partition": 0, "at": "latest"}),
    ("delete_records", "topic:manage", _SPAN | {"before_offset": 0}),
    ("create_topic", "topic:manage", {"topic": "T", "partitions": 1}),
    ("alter_topic", "topic:manage", {"topic": "T.none", "partitions": 2}),
    ("delete_topic", "topic:manage", {"topic": "T.none"}),
    ("describe_topic", _ANY_TOPIC, {"topic": "T"}),
    ("list_topics", "", {}),
    ("group_heartbeat", "group:consume topic:consume", {"group": "G", "topics": ["T.none"], "owned": {}}),
    (
        "commit_offsets",
        "group:consume topic:consume",
        {"group": "G", "member_id": "m", "generation": 1, "offsets": [_SPAN | {"offset": 0}]},
    ),
    ("fetch_offsets", "group:consume|manage", {"group": "G", "partitions": {"T": [0]}}),
    ("leave_group", "group:consume", {"group": "G", "member_id": "m"}),
    ("describe_group", "group:consume|queue|manage", {"group": "G"}),
    ("reset_offsets", "group:manage", {"group": "G.idle", "offsets": []}),
    ("delete_group", "group:manage", {"group": "G.none"}),
    ("pause_group", "group:manage", {"group": "G.idle"}),
    ("resume_group", "group:manage", {"group": "G.idle"}),
    ("list_groups", "", {}),
    (
        "acquire",
        "group:queue topic:queue",
        {"group": "G.share", "topics": ["T"], "member_id": "m", "max_records": 1, "max_wait_ms": 0},
    ),
    (
        "acknowledge",
        "group:queue",
        {
            "group": "G.share",
            "member_id": "m",
            "acknowledgements": [_SPAN | {"first_offset": 7, "verdict": "accept"}],
        },
    ),
    ("configure_share_group", "group:manage", {"group": "G.share", "max_deliveries": 5}),
    (
        "configure_share_group",
        "group:manage topic:produce",
        {"group": "G.share", "dead_letter": "T.dead"},
    ),
    ("list_scheduled", "cluster:manage", {}),
    ("cancel_scheduled", "cluster:manage", {"scheduled_id": "none"}),
    ("status", "cluster:operate", {}),
    ("kill", "cluster:operate", {"address": "partition/T.none/0"}),
    ("revive", "cluster:operate", {"address": "partition/T.none/0"}),
    ("set_quota", "cluster:operate", {"client_id": "nobody", "quota": {"fetch_bytes": 1_000}}),
    ("remove_quota", "cluster:operate", {"client_id": "somebody"}),
    ("list_quotas", "cluster:operate", {}),
    ("deploy", ADMIN, {"group": "G", "proof": "", "spec": {"handler": "shop:handle", "topics": ["T"]}}),
    ("change_deployment", ADMIN, {"group": "G", "proof": "", "workers": 2}),
    ("list_deployments", "cluster:operate", {}),
    ("read_deployment_output", "cluster:operate", {"group": "G", "worker": 1, "lines": 1}),
    ("create_mirror", ADMIN, {"mirror": "m", "spec": {"source": "nowhere", "topics": []}}),
    ("change_mirror", "cluster:operate", {"mirror": "none", "action": "pause"}),
    ("promote_mirror", "cluster:operate", {"mirror": "none"}),
    ("list_mirrors", "cluster:operate", {}),
    ("cluster_status", "cluster:operate", {}),
    ("change_node", "cluster:operate", {"node": "n3", "action": "drain"}),
    (
        "reassign_partitions",
        "cluster:operate",
        {"moves": [_NOWHERE | {"replicas": ["n1"]}]},
    ),
    ("plan_rebalance", "cluster:operate", {}),
    ("elect_leader", "cluster:operate", _NOWHERE),
    ("add_credential", ADMIN, {"principal": "admin", "key": {"public_key": "k" * 40, "created_ms": 0}}),
    ("remove_credential", ADMIN, _UNKNOWN | {"credential": "none"}),
    ("alter_principal", ADMIN, _UNKNOWN | {"roles": ["none"]}),
    ("remove_principal", ADMIN, _UNKNOWN),
    ("list_principals", ADMIN, {}),
    ("add_rule", ADMIN, {"subject": "nobody", "rule": {"rights": ["operate"], "resource": "topic:T"}}),
    ("remove_rule", ADMIN, {"subject": "nobody", "rule": {"rights": ["consume"], "resource": "topic:T"}}),
    ("list_rules", ADMIN, {}),
    ("test_access", ADMIN, _UNKNOWN | {"right": "consume", "resource": "topic:T"}),
]


class Example(Struct, frozen=True):
    op: str
    needs: str
    fields: dict[str, Any]


EXAMPLES = [Example(*each) for each in _EXAMPLES]


class Holder(Struct, frozen=True):
    """A principal of the matrix."""

    name: str
    rights: frozenset[str]
    denied: frozenset[str] = frozenset()

    def permits(self, needs: str) -> bool:
        def is_met(need: frozenset[str]) -> bool:
            return any(right in self.rights or ADMIN in self.rights for right in need - self.denied)

        return all(is_met(need) for need in _sets(needs))

    def rules(self) -> list[Rule]:
        return [*_rules("allow", self.rights), *_rules("deny", self.denied)]


def _rules(effect: Literal["allow", "deny"], rights: Iterable[str]) -> list[Rule]:
    of: dict[str, list[Any]] = {}
    for right in sorted(rights):
        kind, _, name = right.partition(":")
        of.setdefault(kind, []).append(name)
    return [Rule(effect=effect, rights=tuple(names), resource=RESOURCES[kind]) for kind, names in of.items()]


def _sets(needs: str) -> list[frozenset[str]]:
    """Return the rights of each need, of which one is enough."""
    found = []
    for need in needs.split():
        kind, _, rights = need.partition(":")
        found.append(frozenset(f"{kind}:{right}" for right in rights.split("|")))
    return found


def holder_of(needs: str) -> Holder:
    """Return a principal with no more rights than these needs ask for."""
    rights = frozenset(min(need) for need in _sets(needs))
    return Holder("-and-".join(sorted(rights)).replace(":", "-") or "none", rights)


def _holders() -> list[Holder]:
    """One without rights, and for each right one that has it alone, one that has all but it and `admin`, and one to
    whom it is denied; and one for each combination that a request needs."""
    found = [holder_of(""), *(holder_of(example.needs) for example in EXAMPLES)]
    for right in RIGHTS:
        name = right.replace(":", "-")
        found.append(holder_of(right))
        found.append(Holder(f"not-{name}", frozenset(RIGHTS) - {right, ADMIN}))
        found.append(Holder(f"denied-{name}", frozenset(RIGHTS), frozenset({right})))
    return list({holder.name: holder for holder in found}.values())


HOLDERS = _holders()
NOBODY = holder_of("")
