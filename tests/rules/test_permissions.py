"""Rules: the permissions of every public request are stated in `actors/gateway/needs.py`, and each is known to be an
administrative act, which the audit records, or none.

One without permissions is refused to all but administrators.
"""

from planaria.actors.gateway.acts import ACTS
from planaria.actors.gateway.machine import REQUESTS
from planaria.actors.gateway.needs import NEEDS


def test_every_public_request_has_its_permissions() -> None:
    assert sorted(kind.__name__ for kind in REQUESTS) == sorted(kind.__name__ for kind in NEEDS)


NO_ACTS = """
    Hello Cancel Metadata Produce Publish InitProducer AddToTransaction EndTransaction Fetch ListOffsets DescribeTopic
    GroupHeartbeat CommitOffsets FetchOffsets LeaveGroup DescribeGroup Acquire Acknowledge ListTopics ListGroups
    ListScheduled ListTransactions Status ListQuotas ListDeployments ReadDeploymentOutput ListMirrors
    ClusterStatus PlanRebalance ListPrincipals ListRules TestAccess
"""
"""Requests that read, write messages, or take part in a group."""


def test_every_public_request_is_an_act_of_the_audit_or_known_to_be_none() -> None:
    acts = {kind.__name__ for kind in ACTS}
    assert not acts & set(NO_ACTS.split())
    assert {kind.__name__ for kind in REQUESTS} == acts | set(NO_ACTS.split())
