"""The rate of handshakes: a host that makes too many waits, and others do not."""

from planaria.transport.security.handshakes import MAX_HOSTS, Handshakes


def test_a_host_beyond_its_rate_waits_and_others_do_not() -> None:
    handshakes = Handshakes(per_second=10)
    taken = sum(handshakes.take("flood", 0) for _ in range(1_000))
    assert 1 <= taken <= 20
    assert handshakes.take("other", 0)
    later = sum(handshakes.take("flood", 1_000 + at) for at in range(0, 10_000, 10))
    assert 80 <= later <= 120


def test_the_table_of_hosts_is_bounded() -> None:
    handshakes = Handshakes()
    for number in range(MAX_HOSTS + 100):
        handshakes.take(f"host-{number}", 0)
    assert len(handshakes._buckets) == MAX_HOSTS
