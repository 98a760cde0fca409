"""A client's configuration: which source wins, which endpoint gets credentials, and secrets that stay secret."""

import os
from pathlib import Path
from typing import Any

import pytest

from planaria.supervisor.config import load
from planaria.transport.client.configuration import Settings, configured, options_for
from planaria.transport.endpoints import DEFAULT_ENDPOINT
from planaria.transport.security.client_credentials import CredentialsError
from planaria.transport.security.key_files import KeyFileError, new_key_pair, write_key_file
from planaria.transport.security.tls_options import Tls

URL = "tcp://broker.example:5570"
SERVER = new_key_pair().public_key
OTHER = new_key_pair().public_key


class Home:
    """A home directory with a file of the configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / ".config" / "planaria" / "client.toml"
        self.file.parent.mkdir(parents=True)
        self.environment = {"HOME": os.fspath(folder)}

    def write(self, mode: int = 0o600, **values: str) -> None:
        self.file.write_text("".join(f'{name} = "{value}"\n' for name, value in values.items()))
        self.file.chmod(mode)

    def key(self, name: str, server_key: str | None = SERVER) -> str:
        pair = new_key_pair(name, server_key)
        write_key_file(self.file.parent / f"{name}.key", pair, "")
        return pair.public_key

    def open(self, endpoint: Any = None, variables: dict[str, str] | None = None, **given: Any) -> Any:
        return configured(endpoint, {**self.environment, **(variables or {})}, Settings(**given))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_without_any_source_it_is_this_machine(home: Home) -> None:
    endpoint, found = home.open()
    assert (endpoint, found.keys) == (DEFAULT_ENDPOINT, None)


def test_the_file_gives_all(home: Home) -> None:
    public_key = home.key("shop")
    home.write(url=URL, key="shop.key")
    endpoint, found = home.open()
    assert (endpoint, found.keys.own.public_key, found.keys.server_key) == (URL, public_key, SERVER)


def test_variables_win_over_the_file_and_arguments_over_both(home: Home) -> None:
    home.write(url=URL, server_key=SERVER, token="planaria_file")
    assert home.open()[1].token == "planaria_file"
    variables = {"PLANARIA_TOKEN": "planaria_env", "PLANARIA_CONNECT": "tcp://env:1"}
    endpoint, found = home.open(variables=variables)
    assert (endpoint, found.token, found.keys.server_key) == ("tcp://env:1", "planaria_env", SERVER)
    endpoint, found = home.open(variables=variables, user="ann", password="p")
    assert (endpoint, found.token, found.user) == ("tcp://env:1", "", "ann"), "an identity is never mixed"


def test_an_endpoint_of_the_program_gets_no_credentials_that_are_for_another(home: Home) -> None:
    home.write(url=URL, server_key=SERVER, token="planaria_file")
    assert home.open("tcp://elsewhere:1")[1].keys is None
    assert home.open("tcp://elsewhere:1", {"PLANARIA_TOKEN": "planaria_env"})[1].keys is None
    assert home.open(URL)[1].token == "planaria_file"
    assert home.open([URL])[1].token == "planaria_file"


def test_a_command_uses_variables_for_any_endpoint_and_the_file_for_its_own(home: Home) -> None:
    home.write(url=URL, server_key=SERVER, token="planaria_file")
    assert options_for(URL, home.environment) == {"server_key": SERVER, "token": "planaria_file"}
    assert options_for("tcp://elsewhere:1", home.environment) == {}
    variables = {**home.environment, "PLANARIA_KEY": "admin.key"}
    assert options_for("tcp://elsewhere:1", variables) == {"key": "admin.key"}


def test_a_key_keeps_its_own_broker_unless_its_source_names_another(home: Home) -> None:
    home.key("shop")
    home.write(server_key=OTHER, key="shop.key")
    assert home.open()[1].keys.server_key == OTHER
    home.write(server_key=OTHER)
    variables = {"PLANARIA_KEY": os.fspath(home.file.parent / "shop.key")}
    assert home.open(variables=variables)[1].keys.server_key == SERVER


DOOR = "tls://broker.example:5573"


def test_the_file_gives_the_settings_of_tls_relative_to_itself(home: Home) -> None:
    home.file.write_text(
        f'url = "{DOOR}"\n[tls]\nca = "ca.pem"\ncertificate = "/c.pem"\nkey = "~/k.pem"\nserver_name = "b"\n'
    )
    endpoint, found = home.open()
    folder = home.file.parent
    assert (endpoint, found.tls.ca, found.tls.server_name) == (DOOR, folder / "ca.pem", "b")
    assert (found.tls.certificate, found.tls.key) == (Path("/c.pem"), Path("~/k.pem").expanduser())
    assert options_for(DOOR, home.environment) == {"tls": found.tls}
    assert options_for("tls://elsewhere:1", home.environment) == {}
    assert home.open("tcp://elsewhere:1")[1].tls is None


def test_a_certificate_is_an_identity_and_authorities_are_not(home: Home) -> None:
    home.file.write_text(f'url = "{DOOR}"\n[tls]\nca = "/ca.pem"\ncertificate = "/c.pem"\nkey = "/k.pem"\n')
    with_token = home.open(variables={"PLANARIA_TOKEN": "planaria_env"})[1]
    assert (with_token.token, with_token.tls.certificate) == ("planaria_env", None), "never mixed"
    assert with_token.tls.ca == Path("/ca.pem")
    named = home.open(tls=Tls(server_name="b"), variables={"PLANARIA_TLS_CA": "/env.pem"})[1].tls
    assert (named.server_name, named.ca, named.certificate) == ("b", "/env.pem", Path("/c.pem"))
    own = home.open(DOOR, tls=Tls(ca="/own.pem"), token="planaria_own")[1]
    assert (own.token, own.tls) == ("planaria_own", Tls(ca="/own.pem"))
    with pytest.raises(CredentialsError, match="tls: only for tls:// endpoints"):
        home.open("tcp://elsewhere:1", tls=Tls(ca="/own.pem"))


def test_settings_of_tls_change_nothing_for_another_endpoint(home: Home) -> None:
    home.file.write_text(f'url = "{URL}"\nserver_key = "{SERVER}"\ntoken = "t"\n[tls]\nca = "/ca.pem"\n')
    home.file.chmod(0o600)
    assert home.open(variables={"PLANARIA_TLS_CA": "/env.pem"})[1].tls is None
    assert options_for(URL, home.environment) == {"server_key": SERVER, "token": "t"}


def test_a_named_file_must_exist(home: Home) -> None:
    missing = os.fspath(home.folder / "none.toml")
    with pytest.raises(CredentialsError, match=r"none\.toml: No such file"):
        home.open(variables={"PLANARIA_CONFIG": missing})
    load(environment={"PLANARIA_CONFIG": missing})  # no setting of the broker


@pytest.mark.parametrize("secret", ["token", "password"])
def test_a_file_with_a_secret_that_others_may_read_is_refused(home: Home, secret: str) -> None:
    home.write(0o640, url=URL, server_key=SERVER, user="ann", **{secret: "hush-hush"})
    with pytest.raises(CredentialsError, match="other users can read its secrets") as refused:
        home.open()
    assert "hush" not in str(refused.value)
    home.write(0o644, url=URL, server_key=SERVER)
    assert home.open()[0] == URL, "without a secret it is no secret"


def test_a_key_file_that_others_may_read_is_refused(home: Home) -> None:
    home.key("shop")
    (home.file.parent / "shop.key").chmod(0o644)
    home.write(url=URL, key="shop.key")
    with pytest.raises(KeyFileError, match="other users can read it"):
        home.open()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('tokn = "hush-hush"', "unknown key 'tokn'; the nearest known one is 'token'"),
        ('token = "hush-hush', "is not a TOML file"),
        ("token = 7", "token must be a text"),
        ('token = ["hush-hush"]', "token must be a text"),
        ("key = 7", "key must be the path of a key file"),
        ('[tls]\ncert = "hush-hush"', "unknown key 'cert'; the nearest known one is 'certificate'"),
        ("[tls]\nca = 7", "tls.ca must be a text"),
        ('tls = "hush-hush"', "tls must be a table"),
    ],
)
def test_errors_name_the_file_and_never_its_values(home: Home, text: str, error: str) -> None:
    home.file.write_text(text + "\n")
    home.file.chmod(0o600)
    with pytest.raises(CredentialsError) as refused:
        home.open()
    assert error in str(refused.value)
    assert "client.toml" in str(refused.value)
    assert "hush" not in str(refused.value) + repr(refused.value.__cause__)


def test_no_secret_is_in_a_text_of_an_object(home: Home) -> None:
    home.write(url=URL, server_key=SERVER, user="ann", password="hush-hush")
    assert "hush" not in repr(home.open())
