"""The operator's commands, as an operator runs them: processes, JSON, exit status."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.management.jsoncommand import parse_duration
from tests.needs import need
from tests.nodes import postgres

CHECKOUT = Path(__file__).resolve().parents[2]
DEVICE_FIELDS = {
    "id",
    "nodeId",
    "name",
    "hostname",
    "user",
    "addresses",
    "os",
    "clientVersion",
    "updateAvailable",
    "created",
    "lastSeen",
    "connectedToControl",
    "expires",
    "keyExpiryDisabled",
    "authorized",
    "isExternal",
    "isEphemeral",
    "machineKey",
    "nodeKey",
    "blocksIncomingConnections",
    "multipleConnections",
    "tailnetLockKey",
    "tailnetLockError",
    "online",
    "state",
}
JOIN = """
import django, sys
django.setup(set_prefix=False)
from nodes.services.registration import RegistrationRequest, answer_registration
from tests.nodes import factories
request = RegistrationRequest(machine=factories.machine(sys.argv[2]), auth_key=sys.argv[1])
assert answer_registration(request=request).node is not None
"""


class Server:
    """A server's data folder and database; commands run as processes of their own."""

    def __init__(self, data: Path, url: str | None = None) -> None:
        self.data = data
        self.environment = os.environ | {
            "TRENZA_DATA": str(data),
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
        }
        self.environment.pop("DATABASE_URL", None)
        if url is not None:
            self.environment["DATABASE_URL"] = url

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=self.environment, cwd=CHECKOUT, capture_output=True, text=True, check=False
        )

    def run(self, *arguments: str) -> Any:
        """The JSON value of a command that succeeds."""
        done = self.python("manage.py", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refuse(self, *arguments: str) -> str:
        """The message of a command that is refused."""
        done = self.python("manage.py", *arguments, "--json")
        assert (done.returncode, done.stdout) == (1, "")
        message: str = json.loads(done.stderr)["message"]
        return message

    def migrate(self) -> None:
        assert self.python("manage.py", "migrate", "-v0").returncode == 0

    def join(self, hostname: str, *flags: str) -> None:
        key = self.run("createauthkey", "home", *flags)["key"]
        done = self.python("-c", JOIN, key, hostname)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    made = Server(tmp_path_factory.mktemp("server") / "data")
    made.migrate()
    made.run("createtailnet", "home", "--owner", "ana@example.com")
    made.join("laptop")
    return made


def test_a_tailnet_is_made_once(server: Server) -> None:
    assert server.run("createtailnet", "work", "--owner", "ana@example.com")["name"] == "work"
    assert server.run("tailnetsettings", "work")["rotates_after_days"] == 90
    assert server.run("tailnetsettings", "work", "rotation_days=30")["rotates_after_days"] == 30
    assert server.run("tailnetsettings", "work", "rotation_days=0", "auto_renew=on")["auto_renew"] is True
    assert server.run("tailnetsettings", "work", "rotation_days=default")["rotation_days"] is None
    assert "number of days" in server.refuse("tailnetsettings", "work", "rotation_days=soon")
    assert "already" in server.refuse("createtailnet", "work", "--owner", "ana@example.com")
    assert "cannot name" in server.refuse("createtailnet", "Not a label", "--owner", "ana@example.com")


def test_a_sign_in_link_is_for_members_and_lets_others_in_only_when_told(server: Server) -> None:
    assert "add --create" in server.refuse("signinlink", "ben@example.com", "--tailnet", "home")
    ben = ("signinlink", "ben@example.com", "--tailnet", "home", "--role", "admin")
    assert "nobody in the tailnet home" in server.refuse(*ben), "a role alone makes nobody"
    first = server.run(*ben, "--create")
    assert set(first) == {"url", "expires"}
    assert first["url"].startswith("http://127.0.0.1:8080/sign-in/link/")
    assert server.run("signinlink", "ben@example.com")["url"] != first["url"]
    assert "as admin" in server.refuse("signinlink", "ben@example.com", "--role", "member")
    token = server.run("createapitoken", "home", "--user", "ben@example.com")
    assert token["key"].startswith("tskey-api-")
    assert token["scopes"] == ["all"]


def test_an_auth_key_is_described_as_the_api_does(server: Server) -> None:
    key = server.run("createauthkey", "home", "--reusable", "--tag", "tag:web", "--expiry", "12h")
    assert key["key"].startswith(f"tskey-auth-{key['id']}-")
    assert key["expirySeconds"] == 12 * 3600
    assert key["capabilities"]["devices"]["create"] == {
        "reusable": True,
        "ephemeral": False,
        "preauthorized": False,
        "tags": ["tag:web"],
    }
    assert "userId" not in key
    assert server.run("createauthkey", "home")["userId"], "without user and tag it is the owner's"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["createauthkey", "nowhere"], "there is no tailnet nowhere; there are: home"),
        (["createauthkey", "home", "--user", "nobody@example.com"], "nobody in the tailnet"),
        (["createauthkey", "home", "--tag", "web"], "not a tag: web"),
        (["createauthkey", "home", "--expiry", "1y"], "is not a duration"),
        (["createauthkey", "home", "--expiry", "91d"], "at most 90 days"),
        (["createapitoken", "home", "--user", "ana@example.com", "--scope", "x"], "unknown scope x"),
        (["approvenode", "home", "nothing"], "there is no device nothing"),
        (["signinlink", "not an address"], "is not an e-mail address"),
        (["restore", "/nonexistent"], "cannot read"),
    ],
)
def test_a_refusal_is_one_line_and_status_1(server: Server, arguments: list[str], words: str) -> None:
    assert words in server.refuse(*arguments)


def test_devices_are_listed_and_approved_by_any_of_their_names(server: Server) -> None:
    (device,) = server.run("listnodes", "home")
    assert set(device) >= DEVICE_FIELDS
    assert (device["state"], device["authorized"], device["online"]) == ("pending", False, False)
    assert device["name"] == "laptop.home.tailnet.internal"
    for name in (device["id"], device["nodeId"], device["name"], "laptop", *device["addresses"]):
        approved = server.run("approvenode", "home", name)
        assert (approved["state"], approved["authorized"]) == ("active", True)
    words = server.python("manage.py", "listnodes", "home").stdout
    assert "laptop" in words
    assert "active" in words


def test_durations() -> None:
    assert [parse_duration(text).total_seconds() for text in ("45s", "30m", "12h", "90d", "2w")] == [
        45,
        1800,
        43200,
        7776000,
        1209600,
    ]


@pytest.fixture(params=["sqlite", "postgres"])
def backed_up(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if request.param == "sqlite":
        yield Server(tmp_path / "data")
        return
    need("postgres")
    with postgres.server(tmp_path) as url:
        yield Server(tmp_path / "data", postgres.new_database(url, "backup"))


def test_a_restored_server_is_the_one_that_was_backed_up(backed_up: Server, tmp_path: Path) -> None:
    server, file = backed_up, tmp_path / "trenza.backup"
    server.migrate()
    server.run("createtailnet", "home", "--owner", "ana@example.com")
    server.join("laptop", "--preapproved")
    (server.data / "noise.key").write_text("privkey:kept\n")
    before = server.run("listnodes", "home")
    assert server.run("backup", str(file))["keys"] == ["secret_key", "noise.key"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    server.join("intruder")
    (server.data / "noise.key").write_text("privkey:lost\n")
    told = server.run("restore", str(file))
    assert (told["tailnets"], told["nodes"], told["restartNeeded"]) == (1, 1, True)
    assert server.run("listnodes", "home") == before
    assert (server.data / "noise.key").read_text() == "privkey:kept\n"
    assert stat.S_IMODE((server.data / "noise.key").stat().st_mode) == 0o600
    assert server.run("restore", str(file))["restartNeeded"] is False


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08", b"SQLite format 3\x00"])
def test_what_is_no_backup_is_refused(server: Server, tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(content)
    assert "cannot read" in server.refuse("restore", str(broken))
    assert server.run("listnodes", "home")
