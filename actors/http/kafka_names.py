"""The metrics of kafka_exporter, so that boards made for it work unchanged. Pure.

https://github.com/danielqsj/kafka_exporter: names, labels and texts are the same. Nodes have no numbers here: a leader
is 1 if it is on this node. On one machine there is one broker.
"""

from .families import Samples
from .gauges import Observation


def kafka_samples(seen: Observation) -> Samples:
    found: Samples = {("kafka_brokers", ()): 1}
    if seen.cluster is not None:
        found["kafka_brokers", ()] = sum(node.state != "down" for node in seen.cluster.nodes)
    preferred = {
        (each.topic, each.partition): each.replicas[:1] == [each.leader]
        for each in (seen.cluster.partitions if seen.cluster is not None else ())
    }
    for actor in seen.actors:
        log, topic, number = actor.report.log, actor.topic, actor.address.number
        if log is None or topic is None or number is None or log.role != "leader":
            continue
        labels = (topic, str(number))
        figures = {
            "current_offset": log.high_watermark,
            "oldest_offset": log.log_start_offset,
            "leader": 1,
            "leader_is_preferred": preferred.get((topic, number), True),
            "replicas": log.replicas,
            "in_sync_replica": log.in_sync,
            "under_replicated_partition": log.in_sync < log.replicas,
        }
        for name, value in figures.items():
            found[f"kafka_topic_partition_{name}", labels] = value
        count = "kafka_topic_partitions", (topic,)
        found[count] = found.get(count, 0) + 1
    for lag in seen.lags:
        place = (lag.group, lag.tp.topic, str(lag.tp.partition))
        found["kafka_consumergroup_current_offset", place] = lag.offset
        if lag.messages is not None:
            found["kafka_consumergroup_lag", place] = lag.messages
            total = "kafka_consumergroup_lag_sum", place[:2]
            found[total] = found.get(total, 0) + lag.messages
    for actor in seen.actors:
        if actor.report.group is not None:
            found["kafka_consumergroup_members", (actor.address.name,)] = actor.report.group.members
    return found
