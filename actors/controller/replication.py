"""How often a topic is copied: its configuration, completed for the nodes that there are. Pure.

replication_factor     given: refused beyond the nodes       0: 1 on one machine; in a cluster 3, or all nodes
min_in_sync_replicas   given: refused beyond the replicas    0: a majority of the replicas
"""

from collections.abc import Callable

import msgspec

from ...transport.protocol.errors import ErrorCode, ProtocolError
from ...transport.protocol.topics import TopicConfig

DEFAULT_FACTOR = 3


class Replication:
    """`nodes` returns the number of nodes that may hold replicas."""

    def __init__(self, nodes: Callable[[], int] = lambda: 1) -> None:
        self._nodes = nodes

    def completed(self, config: TopicConfig) -> TopicConfig:
        """Return the configuration of a new topic. Raises ProtocolError if there are too few nodes."""
        nodes = self._nodes()
        factor = config.replication_factor or min(DEFAULT_FACTOR, max(1, nodes))
        if factor > max(1, nodes):
            raise ProtocolError(
                ErrorCode.INVALID_CONFIG,
                f"replication_factor: {factor} copies need as many nodes, and the cluster has {nodes}: start more"
                " nodes, or configure fewer copies",
            )
        return self.changed(msgspec.structs.replace(config, replication_factor=factor), factor)

    def changed(self, config: TopicConfig, factor: int) -> TopicConfig:
        """Return the configuration of a topic with `factor` replicas. Raises ProtocolError if they do not suffice."""
        if config.replication_factor not in (0, factor):
            raise ProtocolError(
                ErrorCode.INVALID_CONFIG,
                f"replication_factor: the topic has {factor}; planaria cluster reassign changes it",
            )
        minimum = config.min_in_sync_replicas or factor // 2 + 1
        if minimum > factor:
            raise ProtocolError(
                ErrorCode.INVALID_CONFIG,
                f"min_in_sync_replicas: {minimum} of {factor} replicas is impossible: give 1 to {factor}",
            )
        return msgspec.structs.replace(config, replication_factor=factor, min_in_sync_replicas=minimum)
