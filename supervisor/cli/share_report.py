"""Report of `planaria group describe` for a share group."""

from typing import Any

from ...transport.client.descriptions import GroupDescription, ShareGroupDescription, ShareGroupSettings
from .output import note, plural, print_json, print_table
from .pauses import print_pause
from .retries import RetryingRecords, print_alarms, print_retrying
from .tables import Listing


def settings_text(settings: ShareGroupDescription | ShareGroupSettings) -> str:
    dead_letter = settings.dead_letter or "parked"
    return f"locks of {settings.lock_ms} ms, dead after delivery {settings.max_deliveries}, dead letters: {dead_letter}"


def show_share(
    description: GroupDescription,
    share: ShareGroupDescription,
    retrying: RetryingRecords,
    alarms: list[str],
    *,
    as_json: bool,
) -> None:
    if as_json:
        told: dict[str, Any] = {
            "group": description.group,
            "type": "share",
            "state": description.state,
            "share": share,
        }
        told["paused"] = description.paused
        print_json({**told, "alarms": alarms, "retrying_count": retrying.count, "retrying": retrying.records})
        return
    members = plural(len(share.members), "member")
    note(f"share group {description.group} is {description.state}, {members}; {settings_text(share)}\n")
    numbers = ["partition", "done below", "acquired", "returned", "dead"]
    rows = [
        (
            each.topic,
            str(each.partition),
            str(each.start_offset),
            str(each.acquired),
            str(each.returned),
            str(each.dead),
        )
        for each in share.partitions
    ]
    print_table(Listing("topic", *numbers, numbers=numbers), rows, empty="nothing has been acquired yet")
    print_pause(description.paused)
    print_retrying(retrying)
    print_alarms(alarms)
