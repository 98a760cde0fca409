"""`planaria consume`: messages of topics to standard output."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .connection import DEFAULT_ENDPOINT, ConnectOption, attached
from .failures import CommandFailed
from .records import FORMATS

if TYPE_CHECKING:
    from ...transport.client.client import Client
    from ...transport.client.consumer import Consumer
    from ...transport.client.messages import Message

MAX_MESSAGES_A_POLL = 500
POLL_S = 1.0
COMMIT_INTERVAL_S = 1.0


def consume(
    topics: Annotated[list[str], typer.Argument(metavar="TOPIC...", show_default=False)],
    group: Annotated[
        str | None,
        typer.Option("--group", "-g", help="Share the work with this group, and remember how far it got."),
    ] = None,
    from_beginning: Annotated[
        bool,
        typer.Option("--from-beginning", help="Where nothing is committed, begin at the oldest message."),
    ] = False,
    partition: Annotated[
        list[int] | None,
        typer.Option("--partition", min=0, help="Only this one; not with --group. Repeatable."),
    ] = None,
    output_format: Annotated[
        Literal["value", "json", "full"], typer.Option("--format", help="How a message looks.")
    ] = "value",
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="End after so many messages.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0, metavar="SECONDS", help="End when nothing has come for so long."),
    ] = None,
    connect: ConnectOption = DEFAULT_ENDPOINT,
) -> None:
    """Print the messages of topics as they come, until Ctrl-C, --count or --timeout.

    Without --from-beginning a new reader sees what comes after it. With a group, what is printed is committed; one that
    is killed prints its last second again. Exit code 1 when --timeout ends it before --count.

    [dim]Examples:[/dim]
      planaria consume ORDERS --from-beginning --count 10
      planaria consume ORDERS --group billing --format json | jq .value

    [dim]--format json:[/dim] one {"topic", "partition", "offset", "timestamp_ms", "key", "value", "headers"} a line;
    key_base64 and value_base64 in place of what is not UTF-8
    """
    if group is not None and partition:
        raise typer.BadParameter(
            "does not go with --group: the group shares out partitions", param_hint="--partition"
        )
    with attached(connect) as client:
        options: dict[str, Any] = {
            "auto_offset_reset": "earliest" if from_beginning else "latest",
            "auto_commit": False,
        }
        with _consumer(client, group, topics, partition, options) as consumer:
            _Printing(consumer, output_format, has_group=group is not None).run(count, timeout)


def _consumer(
    client: "Client",
    group: str | None,
    topics: list[str],
    partitions: list[int] | None,
    options: dict[str, Any],
) -> "Consumer":
    if not partitions:
        return client.consumer(group, topics, **options)
    consumer = client.consumer(None, [], **options)
    consumer.assign([(topic, partition) for topic in topics for partition in partitions])
    return consumer


class _Printing:
    """Polls, prints, and commits what has left this process."""

    def __init__(self, consumer: "Consumer", output_format: str, *, has_group: bool) -> None:
        self._consumer = consumer
        self._line = FORMATS[output_format]
        self._has_group = has_group
        self._printed = 0
        self._is_committed = True
        self._committed_at = time.monotonic()

    def run(self, count: int | None, timeout: float | None) -> None:
        heard_at = time.monotonic()
        try:
            while count is None or self._printed < count:
                left = MAX_MESSAGES_A_POLL if count is None else count - self._printed
                wait_s = (
                    POLL_S
                    if timeout is None
                    else min(POLL_S, max(0.0, heard_at + timeout - time.monotonic()))
                )
                messages = self._consumer.poll(wait_s, max_messages=min(left, MAX_MESSAGES_A_POLL))
                if messages:
                    self._print(messages)
                    heard_at = time.monotonic()
                elif timeout is not None and time.monotonic() >= heard_at + timeout:
                    break
                self._commit_when_due()
        except KeyboardInterrupt:
            # The usual end of a consumer that follows a topic, and not a failure.
            pass
        finally:
            self._commit()
        if timeout is not None and count is not None and self._printed < count:
            raise CommandFailed(f"{self._printed} of {count} messages came: none in the last {timeout:g} s")

    def _print(self, messages: "list[Message]") -> None:
        sys.stdout.buffer.write(b"".join([self._line(message) + b"\n" for message in messages]))
        sys.stdout.buffer.flush()
        self._printed += len(messages)
        self._is_committed = False

    def _commit_when_due(self) -> None:
        if time.monotonic() >= self._committed_at + COMMIT_INTERVAL_S:
            self._commit()

    def _commit(self) -> None:
        if self._has_group and not self._is_committed:
            self._consumer.commit()
            self._is_committed = True
            self._committed_at = time.monotonic()
