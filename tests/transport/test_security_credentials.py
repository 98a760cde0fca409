"""Credentials and key files: secrets are recognised, kept nowhere, and shown nowhere."""

import os
from pathlib import Path

import pytest

from planaria.transport.client.client import Client
from planaria.transport.security.client_credentials import CredentialsError, credentials_from
from planaria.transport.security.credentials import TokenRecord, is_password, matches, token_parts
from planaria.transport.security.curve import key_pair_of
from planaria.transport.security.key_files import KeyFileError, new_key_pair, read_key_file, write_key_file
from planaria.transport.security.new_credentials import hash_password, make_token


def test_a_token_is_recognised_by_its_record_which_does_not_contain_it() -> None:
    token, token_id, digest = make_token()
    record = TokenRecord(token_id=token_id, sha256=digest, created_ms=0)
    assert token_parts(token) == (token_id, digest)
    assert matches(record, digest)
    assert token.rpartition("_")[2] not in repr(record)
    for wrong in ("", "planaria_", token[:-1], token + "x", token.upper()):
        parts = token_parts(wrong)
        assert parts is None or not matches(record, parts[1])


def test_a_password_is_recognised_by_its_salted_hash() -> None:
    first, second = hash_password("correct horse", 0), hash_password("correct horse", 0)
    assert first.scrypt != second.scrypt
    assert is_password(first, "correct horse")
    assert not is_password(first, "correct horsf")
    assert not is_password(first, "")


def test_a_key_file_is_read_as_it_was_written_and_only_for_its_owner(tmp_path: Path) -> None:
    pair = new_key_pair("shop", new_key_pair().public_key)
    path = tmp_path / "shop.key"
    write_key_file(path, pair, "A key.")
    assert read_key_file(path) == pair
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyFileError, match="exists already"):
        write_key_file(path, pair, "A key.")
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="other users can read it"):
        read_key_file(path)


@pytest.mark.parametrize(
    "text",
    ["", "not toml", 'public_key = "short"\nsecret_key = "short"', "\udce9"],
)
def test_what_is_no_key_file_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.key"
    path.write_text(text, errors="surrogateescape")
    path.chmod(0o600)
    with pytest.raises(KeyFileError) as refusal:
        read_key_file(path)
    assert "short" not in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_a_secret_key_of_another_pair_is_refused(tmp_path: Path) -> None:
    one, other = new_key_pair(), new_key_pair()
    path = tmp_path / "mixed.key"
    path.write_text(f'public_key = "{one.public_key}"\nsecret_key = "{other.secret_key}"\n')
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="does not belong"):
        read_key_file(path)


def test_a_derived_key_pair_is_the_same_for_the_same_secret_only() -> None:
    assert key_pair_of(b"a") == key_pair_of(b"a")
    assert key_pair_of(b"a").public_key != key_pair_of(b"b").public_key


def test_credentials_that_are_incomplete_or_contradict_each_other_are_refused(tmp_path: Path) -> None:
    server = new_key_pair().public_key
    for options, text in [
        ({"token": "t"}, "server_key: missing"),
        ({"user": "a"}, "user: needs a password"),
        ({"password": "a"}, "user: needs a password"),
        ({"server_key": server, "token": "t", "user": "a", "password": "b"}, "not both"),
    ]:
        with pytest.raises(CredentialsError, match=text):
            credentials_from(**options)  # type: ignore[arg-type]
    with pytest.raises(KeyFileError, match="40 characters"):
        credentials_from(server_key="x")
    with pytest.raises(KeyFileError, match="No such file"):
        Client("tcp://127.0.0.1:1", key=os.fspath(tmp_path / "none.key"))


def test_no_secret_is_in_the_text_of_credentials() -> None:
    pair = new_key_pair("shop", new_key_pair().public_key)
    found = credentials_from(key=pair, token="hidden-token")
    other = credentials_from(key=pair, user="ann", password="hidden-password")
    for text in (repr(found), repr(other), repr(pair), repr(found.keys)):
        assert "hidden" not in text
        assert pair.secret_key not in text
