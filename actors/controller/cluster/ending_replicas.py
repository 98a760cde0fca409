"""The replicas of a node whose processes are being stopped, and those that wait for their end. Pure.

A process that ends writes its checkpoint, and the folder of a topic that is created again has the same path. So nothing
of a topic is made or started here while a process of a topic of that name ends.

    state      left by
    stopping   confirmed -> the files are removed, unless they stay; the waiting ones start after the topic's last one
    waiting    the topic's last process has ended -> started      stopped -> stopping
"""

from ....transport.addresses import TopicPartition


class EndingReplicas:
    def __init__(self) -> None:
        self._stopping: dict[TopicPartition, bool] = {}
        """Partitions, and whether their files stay."""
        self._waiting: set[TopicPartition] = set()

    def stop(self, partition: TopicPartition, *, keeps_files: bool) -> None:
        self._stopping[partition] = keeps_files
        self._waiting.discard(partition)

    def may_start(self, partition: TopicPartition) -> bool:
        """Return True if a replica may start now; otherwise it waits."""
        if self._is_ending(partition.topic):
            self._waiting.add(partition)
            return False
        return True

    def is_waiting(self, partition: TopicPartition) -> bool:
        return partition in self._waiting

    def is_stopping(self, partition: TopicPartition) -> bool:
        return partition in self._stopping

    def on_stopped(self, partition: TopicPartition) -> tuple[bool, list[TopicPartition]]:
        """Return whether the files are to be removed, and the partitions to start."""
        keeps_files = self._stopping.pop(partition)
        if self._is_ending(partition.topic):
            return not keeps_files, []
        waiting = sorted(each for each in self._waiting if each.topic == partition.topic)
        self._waiting.difference_update(waiting)
        return not keeps_files, waiting

    def _is_ending(self, topic: str) -> bool:
        return any(partition.topic == topic for partition in self._stopping)
