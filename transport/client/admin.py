"""Requests of operators to a broker: topics, groups, offsets, quotas, processes. The part that Client and Broker share.

A call waits for the reply until the client's request timeout, then raises TimedOut. The types that calls return are
those of `descriptions.py`.
"""

from typing import Unpack

from ..keywords import QuotaSettings
from ..protocol.delayed import CancelScheduled, ListScheduled, ListScheduledReply
from ..protocol.errors import ErrorCode
from ..protocol.message import Done
from ..protocol.operations import (
    ActorState,
    Kill,
    KillReply,
    Revive,
    ReviveReply,
    SignalName,
    Status,
    StatusReply,
)
from ..protocol.quotas import ListQuotas, ListQuotasReply, QuotaChange, RemoveQuota, SetQuota
from ..protocol.transactions import ListTransactions, ListTransactionsReply
from .descriptions import (
    BrokerStatus,
    KilledActor,
    Quota,
    ScheduledMessage,
    TransactionDescription,
    described,
    described_quota,
    described_status,
)
from .group_admin import GroupAdmin
from .mirror_admin import MirrorAdmin
from .options import known

SCHEDULED_PAGE = 1_000
"""Delayed messages asked for at once."""


class Admin(GroupAdmin, MirrorAdmin):
    """The operator's half of a client."""

    # Delayed messages.

    def list_scheduled(self, topic: str | None = None, limit: int = 1_000) -> list[ScheduledMessage]:
        """Return messages that are held back until their time, of a topic or of all (None), at most `limit`.

            for message in client.list_scheduled("REMINDERS"):
                print(message.scheduled_id, message.deliver_at_ms, message.reason)

        They are in the order in which each scheduler received them. Raises TimedOut.
        """
        found: list[ScheduledMessage] = []
        after: str | None = None
        while len(found) < limit:
            page = min(limit - len(found), SCHEDULED_PAGE)
            reply = self._ask(ListScheduled(topic=topic, limit=page, after=after), ListScheduledReply)
            found += [described(ScheduledMessage, each) for each in reply.messages]
            after = reply.next
            if after is None:
                break
        return found

    def cancel_scheduled(self, scheduled_id: str) -> None:
        """Cancel a delayed message; once this returns it will not be delivered.

            client.cancel_scheduled("invoice-17")

        Raises ProtocolError with UNKNOWN_SCHEDULED_ID when no message of this id is held back any more, TimedOut.
        """
        self._ask(CancelScheduled(scheduled_id=scheduled_id), Done)

    # Transactions.

    def list_transactions(self) -> list[TransactionDescription]:
        """Return every known transactional id and the state of its last transaction.

            open_ids = [each.transactional_id for each in client.list_transactions() if each.state == "Ongoing"]

        Raises TimedOut.
        """
        found = self._ask(ListTransactions(), ListTransactionsReply).transactions
        return [described(TransactionDescription, each) for each in found]

    # Quotas.

    def set_quota(self, client_id: str, **rates: Unpack[QuotaSettings]) -> None:
        """Limit the rates of a client id, in bytes or requests per second; -1 removes a limit, an omitted one stays.

            client.set_quota("reports", fetch_bytes=1_000_000)
            client.set_quota("default", produce_requests=500)

        The quota of "default" applies, separately, to each client id without its own. Raises InvalidOption for an
        unknown name, ProtocolError with INVALID_REQUEST for a wrong value, TimedOut.
        """
        self._ask(SetQuota(client_id=client_id, quota=QuotaChange(**known(QuotaChange, rates))), Done)

    def remove_quota(self, client_id: str) -> None:
        """Remove the limits of a client id; those of "default" apply to it again.

            client.remove_quota("reports")

        Raises ProtocolError with UNKNOWN_QUOTA when it has none of its own, TimedOut.
        """
        request = RemoveQuota(client_id=client_id)
        self._ask_once(request, lambda error: error.code == ErrorCode.UNKNOWN_QUOTA)

    def list_quotas(self) -> dict[str, Quota]:
        """Return the quotas that were set, by client id; a rate without a limit is None.

            limit = client.list_quotas()["reports"].fetch_bytes

        Raises TimedOut.
        """
        found = self._ask(ListQuotas(), ListQuotasReply).quotas
        return {client_id: described_quota(quota) for client_id, quota in found.items()}

    # Processes.

    def status(self, after_version: int | None = None) -> BrokerStatus:
        """Return the state, process id, memory and alarms of each process of the broker.

            for actor in client.status().actors:
                print(actor.address, actor.pid, actor.state, actor.alarms)

        Raises TimedOut. `Broker.status` asks the supervisor itself, so it needs no gateway.

        With `after_version`, the version of an earlier answer of this supervisor, the answer has only the actors whose
        state or process has changed since, without their memory. That is cheap enough for ten calls a second.
        """
        return described_status(self._ask_supervisor(Status(after_version=after_version), StatusReply))

    def kill(self, address: str, signal: SignalName = "SIGKILL") -> KilledActor:
        """Send a signal to an actor, and return the process that received it; the supervisor restarts it if it ends.

            client.kill("partition/ORDERS/0")

        Sent once, because a second signal would reach the actor's successor: when no reply arrives a retriable
        ProtocolError is raised. Raises ProtocolError with UNKNOWN_ACTOR, TimedOut.
        """
        request = Kill(address=address, signal=signal)
        return described(KilledActor, self._ask_supervisor(request, KillReply, is_retried=False))

    def revive(self, address: str) -> ActorState:
        """Start an actor that is quarantined, asleep or waits for its restart, and reset its count of restarts.

            state = client.revive("partition/ORDERS/0")

        Returns the state that it was in. In any other state it is left alone. Raises ProtocolError with UNKNOWN_ACTOR,
        TimedOut.
        """
        return self._ask_supervisor(Revive(address=address), ReviveReply).state
