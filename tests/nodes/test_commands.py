"""The operator's commands: JSON, words, exit status; backups, in processes as an operator runs them."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.core.management import ManagementUtility

from controlplane.management.jsoncommand import parse_duration
from nodes.services.registration import RegistrationRequest, answer_registration
from tests.controlplane.serving import CHECKOUT, Serve
from tests.needs import need
from tests.nodes import factories, postgres

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
# A device that joins, from a process of its own.
JOIN = """
import django, sys
django.setup(set_prefix=False)
from accounts.models import Membership
from accounts.roles import Role
from accounts.selectors import tailnet_by_name
from accounts.tenancy import scope
from tests.nodes import factories
tailnet = tailnet_by_name("default")
with scope(tailnet=tailnet):
    owner = Membership.objects.get(role=Role.OWNER).user
    factories.node(tailnet, owner, hostname=sys.argv[1], preapproved=True)
"""


class Console:
    """Commands in this process, on the test's database: the words and status of one of their own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def print(self, *arguments: str) -> str:
        """What a command that succeeds prints."""
        self._capsys.readouterr()
        utility = ManagementUtility(["manage.py", *arguments])  # executed, it would set up logging anew
        utility.fetch_command(arguments[0]).run_from_argv(utility.argv)
        return self._capsys.readouterr().out

    def run(self, *arguments: str) -> Any:
        """The JSON value of a command that succeeds."""
        return json.loads(self.print(*arguments, "--json"))

    def refuse(self, *arguments: str) -> str:
        """The message of a command that is refused."""
        with pytest.raises(SystemExit) as ended:
            self.print(*arguments, "--json")
        told = self._capsys.readouterr()
        assert (ended.value.code, told.out) == (1, "")
        message: str = json.loads(told.err)["message"]
        return message


@pytest.fixture
def console(transactional_db: None, capsys: pytest.CaptureFixture[str]) -> Console:
    # A command ends by closing the connection, which a test in one transaction cannot do without.
    made = Console(capsys)
    made.run("createtailnet", "home", "--owner", "ana@example.com")
    return made


def refuse(server: Serve, *arguments: str) -> str:
    """The message of a command that is refused, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments, "--json"],
        env=server.environment,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    message: str = json.loads(done.stderr)["message"]
    return message


def test_a_tailnet_is_made_once(console: Console) -> None:
    assert console.run("createtailnet", "work", "--owner", "ana@example.com")["name"] == "work"
    assert console.run("tailnetsettings", "work")["rotates_after_days"] == 90
    assert console.run("tailnetsettings", "work", "rotation_days=30")["rotates_after_days"] == 30
    assert console.run("tailnetsettings", "work", "rotation_days=0", "auto_renew=on")["auto_renew"] is True
    assert console.run("tailnetsettings", "work", "rotation_days=default")["rotation_days"] is None
    assert "number of days" in console.refuse("tailnetsettings", "work", "rotation_days=soon")
    assert "already" in console.refuse("createtailnet", "work", "--owner", "ana@example.com")
    assert "cannot name" in console.refuse("createtailnet", "Not a label", "--owner", "ana@example.com")


def test_a_sign_in_link_is_for_members_and_lets_others_in_only_when_told(console: Console) -> None:
    assert "add --create" in console.refuse("signinlink", "ben@example.com", "--tailnet", "home")
    ben = ("signinlink", "ben@example.com", "--tailnet", "home", "--role", "admin")
    assert "nobody in the tailnet home" in console.refuse(*ben), "a role alone makes nobody"
    first = console.run(*ben, "--create")
    assert set(first) == {"url", "expires"}
    assert first["url"].startswith("http://127.0.0.1:8080/sign-in/link/")
    assert console.run("signinlink", "ben@example.com")["url"] != first["url"]
    assert "as admin" in console.refuse("signinlink", "ben@example.com", "--role", "member")
    token = console.run("createapitoken", "home", "--user", "ben@example.com")
    assert token["key"].startswith("tskey-api-")
    assert token["scopes"] == ["all"]


def test_an_auth_key_is_described_as_the_api_does(console: Console) -> None:
    key = console.run("createauthkey", "home", "--reusable", "--tag", "tag:web", "--expiry", "12h")
    assert key["key"].startswith(f"tskey-auth-{key['id']}-")
    assert key["expirySeconds"] == 12 * 3600
    assert key["capabilities"]["devices"]["create"] == {
        "reusable": True,
        "ephemeral": False,
        "preauthorized": False,
        "tags": ["tag:web"],
    }
    assert "userId" not in key
    assert console.run("createauthkey", "home")["userId"], "without user and tag it is the owner's"


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
def test_a_refusal_is_one_line_and_status_1(console: Console, arguments: list[str], words: str) -> None:
    assert words in console.refuse(*arguments)


def test_devices_are_listed_and_approved_by_any_of_their_names(console: Console) -> None:
    key = console.run("createauthkey", "home")["key"]
    request = RegistrationRequest(machine=factories.machine("laptop"), auth_key=key)
    assert answer_registration(request=request).node is not None
    (device,) = console.run("listnodes", "home")
    assert set(device) >= DEVICE_FIELDS
    assert (device["state"], device["authorized"], device["online"]) == ("pending", False, False)
    assert device["name"] == "laptop.home.tailnet.internal"
    for name in (device["id"], device["nodeId"], device["name"], "laptop", *device["addresses"]):
        approved = console.run("approvenode", "home", name)
        assert (approved["state"], approved["authorized"]) == ("active", True)
    words = console.print("listnodes", "home")
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
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """A server with the tailnet ``default``; commands run as processes of their own."""
    with ExitStack() as stack:
        settings = {}
        if request.param == "postgres":
            need("postgres")
            settings["DATABASE_URL"] = postgres.new_database(
                stack.enter_context(postgres.server(tmp_path)), "backup"
            )
        made = Serve(tmp_path / "data", **settings)
        made.prepare()
        yield made


def test_a_restored_server_is_the_one_that_was_backed_up(server: Serve, tmp_path: Path) -> None:
    file = tmp_path / "trenza.backup"
    server.script(JOIN, "laptop")
    (server.data / "noise.key").write_text("privkey:kept\n")
    before = server.command("listnodes", "default", "--json")
    assert [device["hostname"] for device in before] == ["laptop"]
    assert server.command("backup", str(file), "--json")["keys"] == ["secret_key", "noise.key"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    server.script(JOIN, "intruder")
    (server.data / "noise.key").write_text("privkey:lost\n")
    told = server.command("restore", str(file), "--json")
    assert (told["tailnets"], told["nodes"], told["restartNeeded"]) == (1, 1, True)
    assert server.command("listnodes", "default", "--json") == before
    assert (server.data / "noise.key").read_text() == "privkey:kept\n"
    assert stat.S_IMODE((server.data / "noise.key").stat().st_mode) == 0o600
    assert server.command("restore", str(file), "--json")["restartNeeded"] is False


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
def test_what_is_no_backup_is_refused(server: Serve, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    for content in (b"", b"\x1f\x8b\x08", b"SQLite format 3\x00"):
        broken.write_bytes(content)
        assert "cannot read" in refuse(server, "restore", str(broken))
    assert server.command("listnodes", "default", "--json") == []
