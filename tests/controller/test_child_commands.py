"""The commands to the supervisor: each is repeated until it is confirmed, unless a newer one replaces it."""

import pytest

from planaria.actors.controller.child_commands import ChildCommands, command_refused
from planaria.actors.controller.keys import CommandCall
from planaria.transport.addresses import Address
from planaria.transport.machine import Call, CancelCall
from planaria.transport.protocol.control import ChildSpec, StartChild, StopChild
from planaria.transport.protocol.errors import ErrorBody, ErrorCode

ADDRESS = Address.parse("partition/T/0")
SPEC = ChildSpec(address=ADDRESS, start="module:main")


def test_a_command_is_repeated_until_it_is_confirmed() -> None:
    commands = ChildCommands()
    [start] = commands.start([SPEC])
    assert isinstance(start, Call)
    assert isinstance(start.request, StartChild)
    assert start.is_endless
    assert commands.is_open(ADDRESS)
    assert commands.done(start.key) == ADDRESS
    assert not commands.is_open(ADDRESS)
    assert commands.done(start.key) is None, "confirmed already"


def test_a_newer_command_withdraws_the_older_one_which_would_undo_it() -> None:
    commands = ChildCommands()
    [start] = commands.start([SPEC])
    withdrawn, stop = commands.stop([ADDRESS])
    assert isinstance(start, Call)
    assert isinstance(stop, Call)
    assert withdrawn == CancelCall(start.token)
    assert isinstance(stop.request, StopChild)
    assert stop.token != start.token
    assert commands.done(start.key) is None, "its answer was under way"
    assert commands.is_open(ADDRESS)
    assert commands.done(stop.key) == ADDRESS


def test_only_a_supervisor_that_stops_may_refuse_a_command() -> None:
    key = CommandCall(ADDRESS, 1)
    assert command_refused(key, ErrorBody(ErrorCode.SHUTTING_DOWN, "the supervisor is stopping")) == []
    with pytest.raises(AssertionError, match="no supervisor takes a child"):
        command_refused(key, ErrorBody(ErrorCode.INVALID_REQUEST, "no supervisor takes a child"))
