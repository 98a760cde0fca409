"""What operators read of etcd's answers."""

import pytest

from planaria.actors.metadata.etcd.encoding import decode_refusal


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"x"}}',
            "status 503: etcdserver: no leader",
        ),
        (b"<html>Bad Gateway</html>", "status 503: b'<html>Bad Gateway</html>'"),
        (b'{"result":{}}', "status 503: b'{\"result\":{}}'"),
        (b"", "status 503: b''"),
    ],
)
def test_the_refusal_of_a_watch_is_reported_in_its_own_words(body: bytes, expected: str) -> None:
    assert decode_refusal(503, body) == expected
