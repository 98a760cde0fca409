"""A process that has no free file descriptor ends, and its records are handled by the next incarnation."""

from planaria.actors.subscriber.effects import DescriptorsExhausted
from subscriber_script import Script, messages


def test_a_process_without_free_descriptors_ends_at_once() -> None:
    """A commit could not be sent either, if it needed a connection."""
    script = Script()
    script.start()
    script.polled(*messages("A", 0, 0, 1))
    crash = "crash: no file descriptor is left: the handler opens files or sockets and does not close them"
    assert script.give(DescriptorsExhausted()) == ["abandon", crash]
    assert script.give(DescriptorsExhausted()) == []
