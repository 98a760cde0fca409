"""The console of a broker with authentication: a user signs in with a password or a token, and has that user's rights."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from planaria import Broker, Client
from planaria.supervisor.console import sessions
from planaria.supervisor.security import initialise
from planaria.transport.client.security_admin import SecurityAdmin
from planaria.transport.security.rights import Rule
from served_console import OWN, client_of, served_console

pytestmark = pytest.mark.processes

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, SecurityAdmin, str]]:
    """Yield the URL of the console, the administrator, and a token of the user `reader`."""
    folder = tmp_path_factory.mktemp("secured")
    server = initialise(folder / "data", folder / "admin.key")
    with (
        Broker(folder / "data", endpoint="tcp://127.0.0.1:*") as broker,
        Client(broker.endpoint, key=folder / "admin.key") as client,
        served_console(broker.endpoint, server.public_key) as url,
    ):
        client.create_topic("ORDERS", 1)
        admin = SecurityAdmin.over(client)
        admin.set_password("anna", PASSWORD)
        admin.grant("anna", Rule(rights=("operate",), resource="cluster"))
        token, _ = admin.add_token("reader")
        admin.grant("reader", Rule(rights=("consume",), resource="topic:ORDERS"))
        yield url, admin, token


@pytest.fixture
def http(secured: tuple[str, SecurityAdmin, str]) -> Iterator[httpx.Client]:
    with client_of(secured[0]) as client:
        yield client


def sign_in(http: httpx.Client, **given: Any) -> httpx.Response:
    return http.post("/api/login", json=given, headers=OWN)


def test_without_a_session_there_is_only_the_login(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "FAILED_LOGIN_S", 0.0)
    assert (http.get("/topics").status_code, http.get("/topics").headers["location"]) == (303, "/login")
    assert "Sign in" in http.get("/login").text
    for path in ("/api/topics", "/api/tree", "/api/actor?address=controller"):
        assert http.get(path).status_code == 401, path
    assert (
        http.post("/api/kill", json={"address": "gateway/0", "signal": "SIGKILL"}, headers=OWN).status_code
        == 401
    )
    assert sign_in(http, user="anna", password="a wrong password").status_code == 401
    assert sign_in(http, token="nonsense").status_code == 401
    assert sign_in(http).status_code == 401
    http.cookies.set(sessions.COOKIE, "guessed")
    assert http.get("/api/topics").status_code == 401


def test_a_user_has_the_rights_of_that_user_until_they_are_taken(
    http: httpx.Client, secured: tuple[str, SecurityAdmin, str]
) -> None:
    _, admin, token = secured
    answer = sign_in(http, user="anna", password=PASSWORD)
    assert answer.status_code == 200
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=strict" in answer.headers["set-cookie"]
    page = http.get("/")
    assert "anna" in page.text
    assert PASSWORD not in page.text
    assert http.get("/api/actor", params={"address": "controller"}).status_code == 200
    assert http.get("/api/topics").json()["topics"] == [], "no right on any"
    assert http.get("/api/security").status_code == 403
    admin.revoke("anna", Rule(rights=("operate",), resource="cluster"))
    assert http.get("/api/actor", params={"address": "controller"}).status_code == 403
    assert http.post("/api/logout", json={}, headers=OWN).status_code == 200
    assert http.get("/api/topics").status_code == 401
    assert sign_in(http, token=token).status_code == 200
    assert [each["topic"] for each in http.get("/api/topics").json()["topics"]] == ["ORDERS"]
    assert http.get("/api/messages", params={"topic": "ORDERS"}).json()["messages"] == []
    kill = {"address": "gateway/0", "signal": "SIGKILL"}
    assert http.post("/api/kill", json=kill, headers=OWN).status_code == 403
