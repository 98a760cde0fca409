"""The headers of tests/vectors/headers.json: each public op's request and reply, and examples of refusals.

Requests are written as a client in any language would write them, without optional fields. Replies are exactly those of
the broker, field by field. The first ones are the session that docs/protocol.md walks through.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from planaria.transport.codec import encode_header
from planaria.transport.protocol import (
    cluster,
    data,
    delayed,
    deployments,
    groups,
    message,
    mirrored,
    mirrors,
    operations,
    quotas,
    security,
    session,
    shares,
    topics,
    transactions,
)
from planaria.transport.protocol.errors import RETRIABLE, ErrorBody, ErrorCode
from planaria.transport.protocol.message import ErrorReply, Reply
from planaria.transport.security.rights import Rule

MEMBER = "billing-0-1"
PUBLIC_KEY = "h7I-Udy(yuFo?nZ-]$D$^Ch0ehxf$b}e+:z-ZP!Y"
READ_ORDERS = Rule(rights=("consume",), resource="topic:ORDERS*")

SESSION_REQUESTS: dict[str, dict[str, Any]] = {
    "hello": {"op": "hello", "id": 1, "version": 1, "client_id": "demo"},
    "create_topic": {
        "op": "create_topic", "id": 2, "topic": "ORDERS", "partitions": 2, "config": {"retention_ms": 86_400_000},
    },
    "publish": {
        "op": "publish", "id": 3, "topic": "ORDERS",
        "records": [{"key_text": "order_id_1", "value_text": "{\"amount\": 100}", "headers": {"source": "web"}}],
    },
    "fetch": {"op": "fetch", "id": 4, "topic": "ORDERS", "partition": 1, "offset": 0, "max_wait_ms": 1_000},
    "group_heartbeat, joining": {
        "op": "group_heartbeat", "id": 5, "group": "billing", "topics": ["ORDERS"], "owned": {},
    },
    "group_heartbeat, waiting": {
        "op": "group_heartbeat", "id": 6, "group": "billing", "member_id": MEMBER, "generation": 1, "owned": {},
        "max_wait_ms": 3_000,
    },
    "group_heartbeat, owning": {
        "op": "group_heartbeat", "id": 7, "group": "billing", "member_id": MEMBER, "generation": 2,
        "owned": {"ORDERS": [0, 1]},
    },
    "commit_offsets": {
        "op": "commit_offsets", "id": 8, "group": "billing", "member_id": MEMBER, "generation": 2,
        "offsets": [{"topic": "ORDERS", "partition": 1, "offset": 1}],
    },
    "leave_group": {"op": "leave_group", "id": 9, "group": "billing", "member_id": MEMBER},
}  # fmt: skip

OTHER_REQUESTS: dict[str, dict[str, Any]] = {
    "cancel": {"op": "cancel", "request_id": 4},
    "metadata": {
        "op": "metadata",
        "id": 20,
        "topics": ["ORDERS"],
        "groups": ["billing"],
        "after_version": 4294967296,
        "max_wait_ms": 30_000,
    },
    "alter_topic": {"op": "alter_topic", "id": 21, "topic": "ORDERS", "partitions": 4, "config": {"flush": "os"}},
    "delete_topic": {"op": "delete_topic", "id": 22, "topic": "ORDERS"},
    "list_topics": {"op": "list_topics", "id": 23, "internal": True},
    "describe_topic": {"op": "describe_topic", "id": 24, "topic": "ORDERS"},
    "delete_records": {"op": "delete_records", "id": 25, "topic": "ORDERS", "partition": 1, "before_offset": -1},
    "init_producer": {"op": "init_producer", "id": 26},
    "produce": {
        "op": "produce", "id": 27, "topic": "ORDERS", "partition": 1, "acks": "all", "topic_id": "9a1c",
    },
    "produce, expecting a version": {
        "op": "produce", "id": 70, "topic": "ORDERS", "partition": 1, "expected": [None, {"key_version": -1}],
    },
    "publish, expecting an offset": {
        "op": "publish", "id": 71, "topic": "ORDERS", "partition": 1,
        "records": [{"key_text": "k", "value_text": "v", "expected_offset": 7},
                    {"key_text": "k", "value_text": "w", "expected_key_version": 7}],
    },
    "produce without an answer": {"op": "produce", "topic": "ORDERS", "partition": 1, "acks": 0},
    "publish of bytes": {
        "op": "publish", "id": "p-1", "topic": "ORDERS", "partition": 0, "acks": 1,
        "records": [{"key": b"\x00\xff", "value": b"\xde\xad\xbe\xef", "timestamp_ms": 1_700_000_000_000},
                    {"key_text": "ключ", "value": None}, {"value_text": "v", "dedup_id": "order-17"}],
    },
    "fetch of batches": {
        "op": "fetch", "id": 28, "topic": "ORDERS", "partition": 1, "offset": 2**53, "max_bytes": 65_536,
        "min_bytes": 1_024, "max_wait_ms": 500, "format": "batches",
    },
    "publish on a connection that was greeted": {
        "op": "publish", "id": 47, "greeted": True, "topic": "ORDERS", "records": [{"value_text": "v"}],
    },
    "list_offsets, latest": {"op": "list_offsets", "id": 29, "topic": "ORDERS", "partition": 1, "at": "latest"},
    "list_offsets, by time": {
        "op": "list_offsets", "id": 30, "topic": "ORDERS", "partition": 1, "at": 1_700_000_000_000,
    },
    "fetch_offsets": {"op": "fetch_offsets", "id": 31, "group": "billing", "partitions": {"ORDERS": [0, 1]}},
    "list_groups": {"op": "list_groups", "id": 32},
    "describe_group": {"op": "describe_group", "id": 33, "group": "billing"},
    "reset_offsets": {
        "op": "reset_offsets", "id": 34, "group": "billing",
        "offsets": [{"topic": "ORDERS", "partition": 1, "offset": 0, "metadata": "again"}],
    },
    "delete_group": {"op": "delete_group", "id": 35, "group": "billing"},
    "pause_group": {
        "op": "pause_group", "id": 48, "group": "billing", "reason": "the bank is down", "for_ms": 3_600_000,
    },
    "resume_group": {"op": "resume_group", "id": 49, "group": "billing"},
    "status": {"op": "status", "id": 36},
    "kill": {"op": "kill", "id": 37, "address": "partition/ORDERS/1", "signal": "SIGKILL"},
    "revive": {"op": "revive", "id": 38, "address": "partition/ORDERS/1"},
    "publish, delayed": {
        "op": "publish", "id": 39, "topic": "ORDERS",
        "records": [{"value_text": "v", "delay_ms": 5_000, "scheduled_id": "reminder-17"},
                    {"value_text": "w", "deliver_at_ms": 1_700_000_000_000}],
    },
    "init_producer, transactional": {
        "op": "init_producer", "id": 42, "transactional_id": "orders-to-payments", "transaction_timeout_ms": 30_000,
    },
    "add_to_transaction": {
        "op": "add_to_transaction", "id": 43, "producer_id": 2**40 + 7, "producer_epoch": 3,
        "partitions": {"ORDERS": [0, 1]}, "groups": ["billing"],
    },
    "end_transaction": {
        "op": "end_transaction", "id": 44, "producer_id": 2**40 + 7, "producer_epoch": 3, "commit": True,
        "partitions": {"ORDERS": [0, 1]}, "groups": ["billing"],
    },
    "list_transactions": {"op": "list_transactions", "id": 45},
    "commit_offsets, with what they belong to": {
        "op": "commit_offsets", "id": 58, "group": "billing",
        "offsets": [
            {
                "topic": "ORDERS", "partition": 1, "offset": 1, "topic_id": "9a1c", "reset_epoch": 2,
                "leader_epoch": 7,
            }
        ],
    },
    "fetch, after another one": {
        "op": "fetch", "id": 59, "topic": "ORDERS", "partition": 1, "offset": 1, "format": "batches",
        "topic_id": "9a1c", "leader_epoch": 7,
    },
    "commit_offsets, in a transaction": {
        "op": "commit_offsets", "id": 46, "group": "billing", "member_id": MEMBER, "generation": 2,
        "offsets": [{"topic": "ORDERS", "partition": 1, "offset": 1}],
        "producer_id": 2**40 + 7, "producer_epoch": 3,
    },
    "list_scheduled": {"op": "list_scheduled", "id": 40, "topic": "ORDERS", "limit": 10, "after": "1:17"},
    "acquire": {
        "op": "acquire", "id": 60, "group": "resize", "topics": ["IMAGES"], "member_id": "worker-1", "max_records": 10,
        "max_wait_ms": 30_000,
    },
    "acquire ranges": {
        "op": "acquire", "id": 61, "group": "resize", "topics": ["IMAGES"], "member_id": "worker-1",
        "max_records": 1_000, "lock_ms": 60_000, "format": "ranges",
        "acknowledgements": [
            {"topic": "IMAGES", "partition": 0, "first_offset": 0, "last_offset": 6, "verdict": "accept"}
        ],
    },
    "acknowledge": {
        "op": "acknowledge", "id": 62, "group": "resize", "member_id": "worker-1",
        "acknowledgements": [
            {"topic": "IMAGES", "partition": 0, "first_offset": 0, "last_offset": 6, "verdict": "accept"},
            {"topic": "IMAGES", "partition": 0, "first_offset": 7, "verdict": "fail", "delay_ms": 5_000},
            {"topic": "IMAGES", "partition": 0, "first_offset": 8, "verdict": "reject", "reason": "no image"},
        ],
    },
    "configure_share_group": {
        "op": "configure_share_group", "id": 63, "group": "resize", "max_deliveries": 3, "dead_letter": "IMAGES.dlq",
    },
    "describe_group, share": {"op": "describe_group", "id": 64, "group": "resize"},
    "cancel_scheduled": {"op": "cancel_scheduled", "id": 41, "scheduled_id": "reminder-17"},
    "produce, held back": {"op": "produce", "id": 53, "topic": "ORDERS", "partition": 1},
    "set_quota": {"op": "set_quota", "id": 50, "client_id": "reports", "quota": {"fetch_bytes": 1_000_000}},
    "remove_quota": {"op": "remove_quota", "id": 51, "client_id": "reports"},
    "list_quotas": {"op": "list_quotas", "id": 52},
    "deploy": {
        "op": "deploy", "id": 83, "group": "billing", "proof": "0338faa622c0",
        "spec": {"handler": "shop.billing:charge", "topics": ["ORDERS"], "workers": 3, "environment": {"BANK": "abc"}},
    },
    "change_deployment": {
        "op": "change_deployment", "id": 84, "group": "billing", "proof": "0338faa622c0", "workers": 4,
    },
    "list_deployments": {"op": "list_deployments", "id": 85},
    "read_deployment_output": {
        "op": "read_deployment_output", "id": 96, "group": "billing", "worker": 1, "lines": 10,
        "positions": [{"worker": 1, "position": 4096}],
    },
    "create_mirror": {
        "op": "create_mirror", "id": 86, "mirror": "paris",
        "spec": {"source": "tcp://paris:5570", "topics": ["ORDERS*"], "key_file": "/etc/planaria/mirror.key"},
    },
    "change_mirror": {"op": "change_mirror", "id": 87, "mirror": "paris", "action": "pause"},
    "list_mirrors": {"op": "list_mirrors", "id": 88},
    "promote_mirror": {"op": "promote_mirror", "id": 89, "mirror": "paris", "topics": ["ORDERS"]},
    "hello, with a token": {
        "op": "hello", "id": 80, "version": 1,
        "token": "planaria_0338faa622c0_l7IdIB03tYOCpSZ3IVwdHr13yccUWC1KShngsJHXANE",
    },
    "hello, with a password": {"op": "hello", "id": 81, "version": 1, "user": "ann", "password": "correct horse"},
    "add_credential": {
        "op": "add_credential", "id": 82, "principal": "shop",
        "key": {"public_key": PUBLIC_KEY, "created_ms": 1_790_000_000_000},
    },
    "remove_credential": {"op": "remove_credential", "id": 91, "principal": "shop", "credential": "0338faa622c0"},
    "alter_principal": {"op": "alter_principal", "id": 92, "principal": "shop", "roles": ["readers"]},
    "remove_principal": {"op": "remove_principal", "id": 93, "principal": "shop"},
    "list_principals": {"op": "list_principals", "id": 86},
    "add_rule": {
        "op": "add_rule", "id": 87, "subject": "role:readers",
        "rule": {"rights": ["consume"], "resource": "topic:ORDERS*"},
    },
    "remove_rule": {
        "op": "remove_rule", "id": 88, "subject": "shop",
        "rule": {"effect": "deny", "rights": ["manage"], "resource": "topic:ORDERS"},
    },
    "list_rules": {"op": "list_rules", "id": 89},
    "test_access": {"op": "test_access", "id": 90, "principal": "shop", "right": "consume", "resource": "topic:ORDERS"},
    "hello, in a cluster": {"op": "hello", "id": 69, "version": 1, "client_id": "demo"},
    "cluster_status": {"op": "cluster_status", "id": 94},
    "change_node": {"op": "change_node", "id": 95, "node": "n3", "action": "drain"},
    "reassign_partitions": {
        "op": "reassign_partitions", "id": 72,
        "moves": [{"topic": "ORDERS", "partition": 1, "replicas": ["n1", "n2"]}],
    },
    "plan_rebalance": {"op": "plan_rebalance", "id": 73},
    "elect_leader": {"op": "elect_leader", "id": 74, "topic": "ORDERS", "partition": 1, "unclean": True},
}  # fmt: skip

REQUESTS = SESSION_REQUESTS | OTHER_REQUESTS

FORK = mirrored.Fork(
    partition=0,
    offset=9,
    leader_epoch=3,
    first_epoch=1_003,
    source_high_watermark=10,
    heard_at_ms=1_790_000_000_000,
)
OFFSETS = [groups.PartitionOffset(topic="ORDERS", partition=1, offset=1, metadata="")]
DESCRIPTION = topics.DescribeTopicReply(
    topic="ORDERS",
    topic_id="9a1c",
    config=topics.TopicConfig(
        retention_ms=86_400_000, replication_factor=1, min_in_sync_replicas=1
    ),
    partitions=[
        topics.PartitionDescription(
            partition=0, online=True, incarnation=1, leader_epoch=1, log_start_offset=0, high_watermark=0,
            log_end_offset=0, size_bytes=0,
        ),
        topics.PartitionDescription(partition=1, online=False, reason="quarantined: killed by SIGSEGV"),
    ],
)  # fmt: skip

CREATED = topics.DescribeTopicReply(
    topic="ORDERS",
    topic_id="9a1c",
    config=topics.TopicConfig(
        retention_ms=86_400_000, replication_factor=1, min_in_sync_replicas=1
    ),
    partitions=[
        topics.PartitionDescription(
            partition=partition, online=True, incarnation=1, leader_epoch=0, log_start_offset=0, high_watermark=0,
            log_end_offset=0, size_bytes=0,
        )
        for partition in (0, 1)
    ],
)  # fmt: skip

NODES = [session.Node("n1", "tcp://10.0.0.1:5570"), session.Node("n2", "tcp://10.0.0.2:5570")]
REPLIES: dict[str, Reply] = {
    "hello": session.HelloReply(
        version=1, server="planaria/0.1.0", instance_id="c0ffee", run_directory="/tmp/planaria-1000-5d41402abc/7"
    ),
    "create_topic": CREATED,
    "publish": data.PublishReply(records=[data.PublishedRecord(partition=1, offset=0)]),
    "fetch": data.FetchReply(
        topic="ORDERS", partition=1, log_start_offset=0, high_watermark=1, next_offset=1, last_stable_offset=1,
        topic_id="9a1c", leader_epoch=0,
        records=[
            data.FetchedRecord(
                offset=0, timestamp_ms=1_700_000_000_000, key=b"order_id_1", key_text="order_id_1",
                value=b"{\"amount\": 100}", value_text="{\"amount\": 100}", headers={"source": "web"},
            )
        ],
    ),
    "group_heartbeat, joining": groups.GroupHeartbeatReply(
        member_id=MEMBER, generation=1, assignment={}, heartbeat_interval_ms=3_333
    ),
    "group_heartbeat, waiting": groups.GroupHeartbeatReply(
        member_id=MEMBER, generation=2, assignment={"ORDERS": [0, 1]}, heartbeat_interval_ms=3_333
    ),
    "group_heartbeat, owning": groups.GroupHeartbeatReply(
        member_id=MEMBER, generation=2, assignment={"ORDERS": [0, 1]}, heartbeat_interval_ms=3_333
    ),
    "commit_offsets": groups.CommitOffsetsReply(),
    "leave_group": message.Done(),
    "metadata": session.MetadataReply(
        version=4294967298, instance_id="c0ffee", unknown_topics=["NOPE"], nodes=NODES,
        groups=[
            session.GroupMetadata(
                group="billing", endpoint="ipc:///tmp/planaria-1000-5d41402abc/7/coordinator-billing.1"
            ),
            session.GroupMetadata(group="shipping", node="n2"),
        ],
        topics=[
            session.TopicMetadata(
                topic="ORDERS", topic_id="9a1c", max_message_bytes=1_048_576,
                partitions=[
                    session.PartitionMetadata(
                        partition=0, online=True, incarnation=1,
                        endpoint="ipc:///tmp/planaria-1000-5d41402abc/7/partition-ORDERS-0.1",
                    ),
                    session.PartitionMetadata(partition=1, online=False, reason="killed by SIGKILL"),
                ],
            )
        ],
    ),
    "alter_topic": DESCRIPTION,
    "delete_topic": message.Done(),
    "list_topics": topics.ListTopicsReply(
        topics=[topics.TopicSummary(topic="ORDERS", partitions=2)], sites={"5f0e": 7}
    ),
    "describe_topic": DESCRIPTION,
    "delete_records": topics.DeleteRecordsReply(log_start_offset=1),
    "init_producer": data.InitProducerReply(producer_id=42, producer_epoch=0),
    "produce": data.ProduceReply(
        batches=[
            data.ProducedBatch(base_offset=1),
            data.ProducedBatch(base_offset=0, duplicate=True),
            data.ProducedBatch(
                base_offset=-1,
                error=ErrorBody("INVALID_BATCH", "batch checksum does not match its contents"),
            ),
        ],
        high_watermark=3,
    ),
    "publish of bytes": data.PublishReply(
        records=[
            data.PublishedRecord(partition=0, offset=0),
            data.PublishedRecord(
                partition=0, offset=-1, error=ErrorBody("STORAGE_FULL", "no space left on device", True)
            ),
            data.PublishedRecord(partition=0, offset=12, duplicate=True),
        ]
    ),
    "publish, delayed": data.PublishReply(
        records=[
            data.PublishedRecord(partition=-1, offset=-1, scheduled_id="reminder-17"),
            data.PublishedRecord(partition=-1, offset=-1, scheduled_id="c0ffee.1.39.1"),
        ]
    ),
    "list_scheduled": delayed.ListScheduledReply(
        messages=[
            delayed.ScheduledMessage(
                scheduled_id="reminder-17", topic="ORDERS", key=b"order_id_1", key_text="order_id_1",
                deliver_at_ms=1_700_000_005_000, scheduled_at_ms=1_700_000_000_000, size_bytes=11,
                reason="there is no topic 'ORDERS'",
            )
        ],
        next="1:52",
    ),
    "fetch of batches": data.FetchReply(
        topic="ORDERS", partition=1, log_start_offset=0, high_watermark=2**53 + 3, next_offset=2**53 + 3,
        last_stable_offset=2**53 + 3, topic_id="9a1c", leader_epoch=7,
        aborted=[data.AbortedTransaction(2**40 + 7, 2, 2**53)],
    ),
    "list_offsets, latest": data.ListOffsetsReply(offset=3, topic_id="9a1c", leader_epoch=7),
    "list_offsets, by time": data.ListOffsetsReply(
        offset=1, timestamp_ms=1_700_000_000_005, topic_id="9a1c", leader_epoch=7
    ),
    "fetch_offsets": groups.FetchOffsetsReply(offsets=OFFSETS),
    "list_groups": groups.ListGroupsReply(groups=["billing"]),
    "describe_group": groups.DescribeGroupReply(
        group="billing", state="stable", generation=2, assignor="sticky", offsets=OFFSETS,
        members=[
            groups.MemberDescription(
                member_id=MEMBER, instance_id=None, client_id="demo", topics=["ORDERS"], generation=2,
                assignment={"ORDERS": [0, 1]}, owned={"ORDERS": [0, 1]},
            )
        ],
    ),
    "reset_offsets": message.Done(),
    "delete_group": message.Done(),
    "pause_group": message.Done(),
    "resume_group": message.Done(),
    "status": operations.StatusReply(
        version=41, is_whole=False, removed=("coordinator/trial",),
        supervisor_pid=100, instance_id="c0ffee", data_directory="/srv/planaria", endpoint="tcp://127.0.0.1:5570",
        uptime_ms=60_000,
        actors=[
            operations.ActorStatus(
                address="partition/ORDERS/1", pid=107, incarnation=2, restarts=1, state="ready", uptime_ms=59_000,
                memory_bytes=9_000_000, endpoint="ipc:///tmp/planaria-1000-5d41402abc/7/partition-ORDERS-1.2",
                reason="killed by SIGKILL", since_death_ms=59_100, downtime_ms=160, report_age_ms=200,
                report=operations.ActorReport(
                    counters={"messages_in": 1200, "bytes_in": 90_000, "messages_out": 1200, "bytes_out": 40_000},
                    gauges={"requests_waiting": 0, "calls_in_flight": 0, "fetches_parked": 3},
                    requests={"produce": {"done": 1190, "OUT_OF_ORDER_SEQUENCE": 1}, "fetch": {"done": 9}},
                    syncs=operations.Durations(bounds_us=(500, 1000), counts=(900, 250, 12), total_us=400_000),
                ),
            ),
            operations.ActorStatus(
                address="subscriber/billing/1", pid=108, incarnation=1, restarts=0, state="ready", uptime_ms=58_000,
                memory_bytes=9_000_000,
                report=operations.ActorReport(
                    in_flight=(operations.InFlight("ORDERS", 1, 1000, 1, 1_700_000_000_000),),
                    retrying=operations.RetryReport(
                        count=1,
                        records=[
                            operations.Retrying(
                                topic="ORDERS", partition=0, offset=17, key="order-17", attempts=2,
                                reason="ValueError: no amount", first_failed_ms=1_699_999_990_000,
                                next_try_ms=1_700_000_060_000,
                            )
                        ],
                    ),
                ),
            ),
        ],
    ),
    "kill": operations.KillReply(pid=107, incarnation=2),
    "revive": operations.ReviveReply(state="quarantined"),
    "cancel_scheduled": message.Done(),
    "set_quota": message.Done(),
    "remove_quota": message.Done(),
    "deploy": message.Done(),
    "change_deployment": message.Done(),
    "list_deployments": deployments.ListDeploymentsReply(
        deployments=[
            deployments.DeploymentReport(
                group="billing", topics=["ORDERS"], handler="shop.billing:charge", workers=1, version=2,
                is_paused=False, options={"retries": 5}, folder="/srv/shop", python="", variables=["BANK"],
                environment_files=[], nodes=[""],
            )
        ]
    ),
    "read_deployment_output": deployments.ReadDeploymentOutputReply(
        node="", is_complete=True,
        outputs=[deployments.WorkerOutput(worker=1, text="charged 7\n", position=4_106, rest="charging")],
    ),
    "create_mirror": message.Done(),
    "change_mirror": message.Done(),
    "list_mirrors": mirrors.ListMirrorsReply(
        mirrors=[
            mirrors.MirrorReport(
                mirror="paris", state="running", last_contact_ms=1_790_000_000_000, copied_bytes=1_024,
                spec=mirrors.MirrorSpec(source="tcp://paris:5570", topics=("ORDERS*",)), groups=["billing"],
                topics=[
                    mirrors.MirroredTopic(
                        topic="ORDERS", state="following",
                        partitions=[
                            mirrors.PartitionLag(
                                partition=0, log_end_offset=9, source_high_watermark=10, lag_bytes=80, behind_ms=12
                            )
                        ],
                    )
                ],
            )
        ]
    ),
    "promote_mirror": mirrors.PromoteMirrorReply(
        topics=[mirrors.PromotedTopic(topic="ORDERS", forks=[FORK])]
    ),
    "list_quotas": quotas.ListQuotasReply(quotas={"reports": quotas.Quota(fetch_bytes=1_000_000)}),
    "hello, with a token": session.HelloReply(
        version=1, server="planaria/0.1.0", instance_id="c0ffee", run_directory="/run/planaria/7", principal="shop",
        expires_ms=1_790_000_000_000,
    ),
    "hello, with a password": session.HelloReply(
        version=1, server="planaria/0.1.0", instance_id="c0ffee", run_directory="/run/planaria/7", principal="ann",
        expires_ms=0,
    ),
    "add_credential": message.Done(),
    "remove_credential": message.Done(),
    "alter_principal": message.Done(),
    "remove_principal": message.Done(),
    "list_principals": security.ListPrincipalsReply(
        principals=[
            security.PrincipalDescription(
                principal="shop", is_disabled=False, roles=["readers"],
                credentials=[
                    security.CredentialDescription(
                        kind="key", credential=PUBLIC_KEY, created_ms=1_790_000_000_000, expires_ms=0
                    )
                ],
            )
        ]
    ),
    "add_rule": message.Done(),
    "remove_rule": message.Done(),
    "list_rules": security.ListRulesReply(rules={"role:readers": [READ_ORDERS]}),
    "test_access": security.TestAccessReply(is_allowed=True, subject="role:readers", rule=READ_ORDERS),
    "hello, in a cluster": session.HelloReply(
        version=1, server="planaria/0.1.0", instance_id="c0ffee", run_directory="/run/planaria/7", nodes=NODES
    ),
    "cluster_status": cluster.ClusterStatusReply(
        cluster="prod", node="n1", leading="n2", unplaced="",
        nodes=[
            cluster.NodeReport(
                node="n1", state="alive", endpoint="tcp://10.0.0.1:5570", peer_endpoint="tcp://10.0.0.1:5571", rack="",
                cordoned=False, draining=True, leaving=False, stopping=False,
                stop_refusal="without this node ORDERS/1 would be below min_in_sync_replicas: wait until more"
                " replicas are in sync",
                replicas=1, leaders=1, under_replicated=0,
            ),
            cluster.NodeReport(
                node="n2", state="down", endpoint=None, peer_endpoint=None, rack=None,
                cordoned=False, draining=False, leaving=False, stopping=False, stop_refusal="",
                replicas=1, leaders=0, under_replicated=1,
            ),
        ],
        partitions=[
            cluster.PartitionReport(
                topic="ORDERS", partition=1, replicas=["n1", "n2"], target=[], leader="n1", leader_epoch=7,
                in_sync=["n1"], eligible=["n2"], unclean_epochs=[3], offline=False, under_replicated=True,
            )
        ],
    ),
    "change_node": message.Done(),
    "reassign_partitions": message.Done(),
    "plan_rebalance": cluster.PlanRebalanceReply(
        moves=[cluster.PartitionMove(topic="ORDERS", partition=1, replicas=["n2", "n1"])]
    ),
    "elect_leader": message.Done(),
    "produce, held back": data.ProduceReply(
        batches=[data.ProducedBatch(base_offset=1000)], high_watermark=1001, throttle_ms=250
    ),
    "acquire": shares.AcquireReply(
        lock_ms=30_000,
        records=[
            shares.AcquiredRecord(
                topic="IMAGES", partition=0, offset=7, delivery_count=1, timestamp_ms=1_700_000_000_000,
                key=b"cat", key_text="cat", value=b"\x00\xff", headers={"source": "web"},
            )
        ],
    ),
    "acquire ranges": shares.AcquireReply(
        lock_ms=60_000, ranges=[
            shares.AcquiredRange("IMAGES", 0, 7, 7, 2, "9a1c", 7),
            shares.AcquiredRange("IMAGES", 0, 10, 99, 1, "9a1c", 7),
        ],
        results=[shares.AcknowledgeResult()],
    ),
    "acknowledge": shares.AcknowledgeReply(
        results=[
            shares.AcknowledgeResult(),
            shares.AcknowledgeResult(),
            shares.AcknowledgeResult(ErrorBody("NOT_ACQUIRED", "worker-1 does not hold all of IMAGES/0, offsets 8 to 8")),
        ]
    ),
    "configure_share_group": shares.ConfigureShareGroupReply(
        lock_ms=30_000, max_deliveries=3, dead_letter="IMAGES.dlq", start="earliest"
    ),
    "describe_group, share": groups.DescribeGroupReply(
        group="resize", state="stable", generation=0, assignor="", members=[], offsets=[], type="share",
        share=shares.ShareDescription(
            lock_ms=30_000, max_deliveries=3, dead_letter="IMAGES.dlq", start="earliest", members=["worker-1"],
            partitions=[
                shares.SharePartitionDescription(
                    topic="IMAGES", partition=0, start_offset=7, next_offset=12, acquired=2, returned=1, dead=0,
                    held=[
                        shares.HeldRange(
                            member_id="worker-1", first_offset=8, last_offset=9, delivery_count=1,
                            since_ms=1_700_000_000_000, locked_until_ms=1_700_000_030_000,
                        )
                    ],
                    retrying=[
                        shares.RetryingRange(
                            first_offset=7, last_offset=7, delivery_count=2, reason="no space left",
                            first_failed_ms=1_699_999_990_000, next_try_ms=1_700_000_060_000,
                        )
                    ],
                )
            ],
        ),
    ),
    "init_producer, transactional": data.InitProducerReply(producer_id=2**40 + 7, producer_epoch=3),
    "commit_offsets, with what they belong to": groups.CommitOffsetsReply(),
    "fetch, after another one": data.FetchReply(
        topic="ORDERS", partition=1, log_start_offset=0, high_watermark=1, next_offset=1, last_stable_offset=1,
        topic_id="9a1c", leader_epoch=8,
    ),
    "commit_offsets, in a transaction": groups.CommitOffsetsReply(),
    "add_to_transaction": message.Done(),
    "end_transaction": transactions.EndTransactionReply(
        producer_id=2**40 + 7, producer_epoch=4, endpoint="ipc:///run/user/1000/planaria/3/transactions-1.2",
        node="n2",
    ),
    "list_transactions": transactions.ListTransactionsReply(
        transactions=[
            transactions.TransactionDescription(
                transactional_id="orders-to-payments", state="Ongoing", producer_id=2**40 + 7, producer_epoch=3,
                timeout_ms=60_000, started_ms=1_700_000_000_000, partitions={"ORDERS": [0, 1]}, groups=["billing"],
            )
        ]
    ),
}  # fmt: skip


def header_vectors() -> list[dict[str, Any]]:
    """Return every vector as it stands in the file."""
    return [*_requests(), *_replies(), *_errors()]


def _requests() -> Iterator[dict[str, Any]]:
    for name, header in REQUESTS.items():
        yield _vector(
            name, "request", header["op"], msgspec.json.encode(header), msgspec.msgpack.encode(header)
        )


def _replies() -> Iterator[dict[str, Any]]:
    for name, reply in REPLIES.items():
        reply.id = REQUESTS[name]["id"]
        yield _vector(name, "reply", REQUESTS[name]["op"], encode_header(reply, True), encode_header(reply))


def _errors() -> Iterator[dict[str, Any]]:
    for code in ErrorCode:
        wait_ms = 50 if code == ErrorCode.BACKPRESSURE else UNSET
        next_offset = 1_000 if code in (ErrorCode.CORRUPT_LOG, ErrorCode.LOG_TRUNCATED) else UNSET
        message = f"what is wrong, in words ({code})"
        topic_id = "9a1c" if code == ErrorCode.UNKNOWN_TOPIC_ID else UNSET
        leader = "n2" if code == ErrorCode.NOT_LEADER else UNSET
        present = 7 if code == ErrorCode.CONFLICT else UNSET
        hints = {"next_offset": next_offset, "topic_id": topic_id, "leader": leader, "present": present}
        body = ErrorBody(code, message, code in RETRIABLE, wait_ms, **hints)
        reply = ErrorReply(id=99, error=body)
        yield _vector(code, "error", None, encode_header(reply, True), encode_header(reply))


def _vector(name: str, kind: str, op: str | None, as_json: bytes, as_msgpack: bytes) -> dict[str, Any]:
    found = {"name": name, "kind": kind, "json": as_json.decode(), "msgpack": as_msgpack.hex()}
    return found if op is None else {"name": name, "kind": kind, "op": op, **found}
