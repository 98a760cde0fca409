"""The operator's half of a client, for tasks, and a consumer's queries: methods that wait, each run in a worker thread.

These calls are rare and take milliseconds to seconds, so a thread costs nothing that counts.
"""

from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from ..client.admin import Admin
from ..client.offset_queries import OffsetQueries
from .calls import Caller

P = ParamSpec("P")
ResultT = TypeVar("ResultT")
TargetT = TypeVar("TargetT")


class _InThreads(Generic[TargetT]):
    """Has the methods of another object, as coroutine functions."""

    def __init__(self, caller: Caller, target: TargetT) -> None:
        self._caller = caller
        self._target = target


def _awaited(
    method: Callable[Concatenate[TargetT, P], ResultT],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, ResultT]]:
    """Return the method as a coroutine function with the same arguments, result, errors and documentation."""

    @wraps(method)
    async def awaited(self: _InThreads[TargetT], /, *args: P.args, **kwargs: P.kwargs) -> ResultT:
        return await self._caller.bridge.loop.in_thread(partial(method, self._target, *args, **kwargs))

    return awaited


class AsyncAdmin(_InThreads[Admin]):
    """Requests of operators to a broker. Arguments, results and errors are those of `Client`'s methods."""

    def __init__(self, caller: Caller, request_timeout_ms: int) -> None:
        super().__init__(caller, Admin(caller.network, request_timeout_ms))

    create_topic = _awaited(Admin.create_topic)
    delete_topic = _awaited(Admin.delete_topic)
    alter_topic = _awaited(Admin.alter_topic)
    describe_topic = _awaited(Admin.describe_topic)
    list_topics = _awaited(Admin.list_topics)
    delete_records = _awaited(Admin.delete_records)
    list_offsets = _awaited(Admin.list_offsets)
    list_scheduled = _awaited(Admin.list_scheduled)
    cancel_scheduled = _awaited(Admin.cancel_scheduled)
    list_transactions = _awaited(Admin.list_transactions)
    list_groups = _awaited(Admin.list_groups)
    describe_group = _awaited(Admin.describe_group)
    configure_share_group = _awaited(Admin.configure_share_group)
    group_offsets = _awaited(Admin.group_offsets)
    group_lag = _awaited(Admin.group_lag)
    reset_offsets = _awaited(Admin.reset_offsets)
    pause_group = _awaited(Admin.pause_group)
    resume_group = _awaited(Admin.resume_group)
    delete_group = _awaited(Admin.delete_group)
    set_quota = _awaited(Admin.set_quota)
    remove_quota = _awaited(Admin.remove_quota)
    list_quotas = _awaited(Admin.list_quotas)
    create_mirror = _awaited(Admin.create_mirror)
    list_mirrors = _awaited(Admin.list_mirrors)
    pause_mirror = _awaited(Admin.pause_mirror)
    resume_mirror = _awaited(Admin.resume_mirror)
    throttle_mirror = _awaited(Admin.throttle_mirror)
    promote_mirror = _awaited(Admin.promote_mirror)
    delete_mirror = _awaited(Admin.delete_mirror)
    status = _awaited(Admin.status)
    kill = _awaited(Admin.kill)
    revive = _awaited(Admin.revive)


class AsyncOffsetQueries(_InThreads[OffsetQueries]):
    """A consumer's questions to the broker about offsets. Arguments, results and errors are those of `Consumer`."""

    committed = _awaited(OffsetQueries.committed)
    committed_metadata = _awaited(OffsetQueries.committed_metadata)
    offsets_for_times = _awaited(OffsetQueries.offsets_for_times)
    beginning_offsets = _awaited(OffsetQueries.beginning_offsets)
    end_offsets = _awaited(OffsetQueries.end_offsets)
