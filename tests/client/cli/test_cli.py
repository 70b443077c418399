"""``trenza`` on a real socket, in front of a daemon whose host is only remembered."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from client.backend import Backend
from client.c2n import Answerer
from client.cli.__main__ import trenza
from client.cli.common import say
from client.cli.netcheck import describe as describe_netcheck
from client.cli.ping import describe as describe_ping
from client.cli.status import connection, last_seen
from client.commands import Commands
from client.localapi.client import LocalClient
from client.localapi.routes import Routes
from client.localapi.server import Server as Door
from client.store import Store
from tests.browser.server import Server
from tests.client.fakes import FakeHost, key, netmap, node
from wire.netmap import FilterRule, UserProfile

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Machine:
    """One daemon and its command line."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "state")
        self.store.open()
        self.host = FakeHost()
        self.backend = Backend(store=self.store, make_tunnel=self.host.make_tunnel)
        commands = Commands(self.backend)
        self.backend.answer = Answerer(rotate=commands.rotate, ping=commands.ping_for_server).answer
        self.door = Door(folder / "sock", Routes(self.backend, commands).handle, lambda: None)

    async def run(self, *arguments: str, stdin: bytes = b"") -> Result:
        """``trenza …``; its output, errors and exit status."""
        line = ["--socket", str(self.door.path), *arguments]
        return await asyncio.to_thread(CliRunner().invoke, trenza, line, input=stdin)

    async def local_get(self, name: str) -> Any:
        """The local API without the command line."""
        return await asyncio.to_thread(LocalClient(str(self.door.path)).get, name)

    async def says(self, *arguments: str) -> str:
        """The output of a command that succeeds."""
        result = await self.run(*arguments)
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    async def refuses(self, *arguments: str) -> str:
        """The one line of a command that fails."""
        result = await self.run(*arguments)
        assert result.exit_code == 1, result.output
        line = str(result.stderr).strip().splitlines()[-1]
        assert line.startswith("trenza: ")
        return line


@contextlib.asynccontextmanager
async def machine_in(folder: Path) -> AsyncIterator[Machine]:
    machine = Machine(folder)
    await machine.door.start()
    task = asyncio.create_task(machine.backend.run())
    try:
        yield machine
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await machine.door.close()
        await machine.backend.close()
        machine.store.close()


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    async with machine_in(tmp_path) as made:
        yield made


@pytest.fixture
async def joined(tmp_path: Path) -> AsyncIterator[Machine]:
    """A machine that runs on its last netmap: one peer, its server away."""
    first = Store(tmp_path / "state")
    first.open()
    url = "http://127.0.0.1:1"
    first.set_identity(node=key(1), control_url=url)
    first.set_prefs(first.prefs.edited({"WantRunning": True, "ControlURL": url}))
    owner = UserProfile(id=7, login_name="ann@example.com", display_name="Ann")
    shown = netmap(
        node(2, name="web.tail.example.", user=7, online=True, hostinfo={"OS": "linux", "Hostname": "web"}),
        node(3, name="phone.tail.example.", user=7, online=False, hostinfo={"OS": "iOS"}),
        own=node(1, name="me.tail.example.", user=7, public=key(1).public()),
        user_profiles={7: owner},
    )
    first.save_netmap(shown)
    first.close()
    async with machine_in(tmp_path) as made:
        await made.backend.settle()
        yield made


class TestWithoutADaemon:
    def test_it_says_how_to_start_one(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(trenza, ["--socket", str(tmp_path / "none"), "status"])
        assert result.exit_code == 1
        assert result.stderr.startswith("trenza: trenzad is not running")
        assert "sudo systemctl start trenzad" in result.stderr
        assert result.stderr.count("\n") == 1

    def test_its_own_version_needs_none(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(trenza, ["--socket", str(tmp_path / "none"), "version"])
        assert result.exit_code == 0


class TestSignedOut:
    async def test_status_says_so(self, machine: Machine) -> None:
        result = await machine.run("status")
        assert (result.exit_code, result.stdout) == (1, "Logged out.\n")

    async def test_status_json_is_there_all_the_same(self, machine: Machine) -> None:
        content = json.loads(await machine.says("status", "--json"))
        assert content["BackendState"] == "NeedsLogin"
        assert content["HaveNodeKey"] is False
        assert content["Control"] == {"URL": "", "Carrier": "websocket", "Connected": False}

    @pytest.mark.parametrize(
        "verb", [("ip",), ("whoami",), ("ping", "web"), ("netcheck",), ("debug", "netmap")]
    )
    async def test_what_needs_a_network_says_what_to_do(
        self, machine: Machine, verb: tuple[str, ...]
    ) -> None:
        assert "trenza up first" in await machine.refuses(*verb)

    async def test_up_without_a_server_names_both_ways(self, machine: Machine) -> None:
        line = await machine.refuses("up")
        assert "--login-server" in line
        assert "TRENZA_CONTROL_URL" in line

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--login-server=http://127.0.0.1:1",), "refuses the connection"),
            (("--login-server=vpn.example.com",), "lacks http://"),
            (("--hostname=a b",), "no host name"),
            (("--advertise-tags=server",), "no tag"),
            (("--operator=no-such-user-here",), "no user"),
            (("--auth-key=file:/nonexistent",), "cannot read the auth key"),
        ],
    )
    async def test_up_with_a_mistake_is_one_line(
        self, machine: Machine, arguments: tuple[str, ...], words: str
    ) -> None:
        assert words in await machine.refuses("up", "--login-server=http://127.0.0.1:1", *arguments)
        assert machine.store.prefs.control_url == ""

    async def test_an_error_is_json_when_json_is_asked_for(self, machine: Machine) -> None:
        result = await machine.run("up", "--json", "--login-server=http://127.0.0.1:1")
        assert result.exit_code == 1
        assert "refuses the connection" in json.loads(result.stdout)["Error"]

    async def test_rotating_no_key_is_refused(self, machine: Machine) -> None:
        assert "no node key" in await machine.refuses("debug", "rotate-keys")


async def test_up_says_what_it_waits_for(machine: Machine) -> None:
    url = "http://127.0.0.1:1"
    machine.store.set_identity(node=key(1), control_url=url)
    machine.store.set_prefs(machine.store.prefs.edited({"ControlURL": url}))
    result = await machine.run("up", "--timeout=3s")
    assert result.exit_code == 1
    assert "Waiting: no control connection: 127.0.0.1:1 refuses the connection" in result.stderr
    assert "not up after 3 s: no control connection" in result.stderr


class TestOnTheLastNetmap:
    async def test_status_is_a_table(self, joined: Machine) -> None:
        text = await joined.says("status")
        assert text.splitlines()[:3] == [
            "100.64.0.1  me     ann@  linux  -",
            "100.64.0.3  phone  ann@  iOS    active; direct 192.0.2.8:41641; offline, tx 10 rx 20",
            "100.64.0.2  web    ann@  linux  active; direct 192.0.2.8:41641, tx 10 rx 20",
        ]
        assert "# Health check:\n#     - no control connection" in text

    async def test_status_json_has_the_members_that_scripts_know(self, joined: Machine) -> None:
        content = json.loads(await joined.says("status", "--json"))
        assert content["BackendState"] == "Running"
        assert content["TailscaleIPs"] == ["100.64.0.1", "fd7a:115c:a1e0::1"]
        assert content["MagicDNSSuffix"] == "tail.example"
        assert content["User"]["7"]["LoginName"] == "ann@example.com"
        peer = content["Peer"][str(key(2).public())]
        assert (peer["HostName"], peer["DNSName"], peer["CurAddr"]) == (
            "web",
            "web.tail.example.",
            "192.0.2.8:41641",
        )
        assert (peer["Online"], peer["Active"], peer["RxBytes"], peer["TxBytes"]) == (True, True, 20, 10)

    async def test_peers_can_be_left_out(self, joined: Machine) -> None:
        assert json.loads(await joined.says("status", "--json", "--peers=false"))["Peer"] == {}

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ((), "100.64.0.1\nfd7a:115c:a1e0::1\n"),
            (("-4",), "100.64.0.1\n"),
            (("-6",), "fd7a:115c:a1e0::1\n"),
            (("-1",), "100.64.0.1\n"),
            (("-4", "web"), "100.64.0.2\n"),
        ],
    )
    async def test_ip_shows_addresses(self, joined: Machine, arguments: tuple[str, ...], text: str) -> None:
        assert await joined.says("ip", *arguments) == text

    async def test_ping_stops_when_the_path_is_direct(self, joined: Machine) -> None:
        text = await joined.says("ping", "web")
        assert text == "pong from web (100.64.0.2) via 192.0.2.8:41641 in 2ms\n"

    async def test_an_unknown_peer_is_named(self, joined: Machine) -> None:
        assert "no peer 'nobody'" in await joined.refuses("ping", "nobody")
        assert "no peer 'nobody'" in await joined.refuses("ip", "nobody")
        assert "no node 'nobody'" in await joined.refuses("whois", "nobody")

    async def test_whois_takes_an_address_with_a_port(self, joined: Machine) -> None:
        for address in ("100.64.0.2", "100.64.0.2:443", "[fd7a:115c:a1e0::2]:443", "web", "web.tail.example"):
            text = await joined.says("whois", address)
            assert text.splitlines() == [
                "Machine:",
                "  Name:          web.tail.example",
                "  ID:            n2",
                "  Addresses:     [100.64.0.2/32 fd7a:115c:a1e0::2/128]",
                "User:",
                "  Name:     ann@example.com",
                "  ID:       7",
            ]

    async def test_whois_shows_what_rules_grant_unless_shields_are_up(self, joined: Machine) -> None:
        grant = {"Dsts": ["100.64.0.1/32"], "CapMap": {"example.com/cap/café": [{"role": "admin"}]}}
        rule = FilterRule(sources=("100.64.0.2",), cap_grants=(grant,))
        netmaps = joined.backend.follower._netmaps
        assert netmaps.newest is not None
        netmaps.newest = replace(netmaps.newest, packet_filters={"base": (rule,)})
        text = await joined.says("whois", "web")
        assert text.endswith(
            "Capabilities:\n  - example.com/cap/café:\n"
            '      [\n        {\n          "role": "admin"\n        }\n      ]\n'
        )
        await joined.says("set", "--shields-up")
        assert "Capabilities" not in await joined.says("whois", "web")

    async def test_whoami_is_this_node(self, joined: Machine) -> None:
        found = json.loads(await joined.says("whoami", "--json"))
        assert found["Node"]["Name"] == "me.tail.example."
        assert found["CurrentTailnet"]["MagicDNSSuffix"] == "tail.example"
        assert "  MagicDNS Suffix:     tail.example" in await joined.says("whoami")

    async def test_netcheck_is_a_report(self, joined: Machine) -> None:
        assert "\t* UDP: true" in await joined.says("netcheck")
        report = json.loads(await joined.says("netcheck", "--format=json"))
        assert (report["PreferredDERP"], report["RegionLatency"]) == (900, {"900": 4_000_000})

    async def test_settings_are_changed_one_by_one_and_shown(self, joined: Machine) -> None:
        assert await joined.says("set", "--shields-up") == ""
        assert await joined.says("get", "shields-up") == "true\n"
        values = json.loads(await joined.says("get", "--json"))
        assert values["login-server"] == "http://127.0.0.1:1"
        assert "no setting" in await joined.refuses("get", "nonsense")
        assert "nothing to set" in await joined.refuses("set")

    async def test_up_refuses_to_forget_a_setting(self, joined: Machine) -> None:
        await joined.says("set", "--hostname=web-9", "--advertise-tags=tag:a,tag:b")
        line = await joined.refuses("up", "--shields-up")
        assert "trenza up --hostname=web-9 --advertise-tags=tag:a,tag:b --shields-up" in line
        await joined.says("up")
        assert await joined.says("get", "hostname") == "web-9\n"
        await joined.says("up", "--reset")
        assert await joined.says("get", "hostname") == "\n"

    async def test_down_and_up_are_silent(self, joined: Machine) -> None:
        assert await joined.says("down") == ""
        assert (await joined.run("status")).stdout == "Trenza is stopped.\n"
        result = await joined.run("up")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")

    async def test_logout_says_when_the_server_was_not_told(self, joined: Machine) -> None:
        result = await joined.run("logout")
        assert result.exit_code == 0
        assert result.stderr.startswith("Warning: signed out here, but the server was not told")
        assert (await joined.run("status")).stdout == "Logged out.\n"

    async def test_the_looks_inside(self, joined: Machine) -> None:
        assert json.loads(await joined.says("debug", "prefs"))["WantRunning"] is True
        assert json.loads(await joined.says("debug", "netmap"))["Node"]["ID"] == 1
        assert "Regions" in json.loads(await joined.says("debug", "derp-map"))
        assert json.loads(await joined.says("version", "--daemon", "--json"))["daemonLong"]


class TestWithAServer:
    async def test_up_by_key_is_silent_and_up(self, machine: Machine, server: Server, tmp_path: Path) -> None:
        made = await asyncio.to_thread(server.command, "createauthkey", "default", "--preapproved", "--json")
        (tmp_path / "key").write_text(made["key"])
        result = await machine.run(
            "up", f"--login-server={server.url}", f"--auth-key=file:{tmp_path}/key", "--timeout=30s"
        )
        assert (result.exit_code, result.output) == (0, "")
        content = json.loads(await machine.says("status", "--json"))
        assert content["Control"] == {"URL": server.url, "Carrier": "websocket", "Connected": True}
        before = content["Self"]["PublicKey"]
        assert "new node key" in await machine.says("debug", "rotate-keys")
        after = json.loads(await machine.says("status", "--json"))["Self"]
        assert after["PublicKey"] != before
        assert after["TailscaleIPs"] == content["TailscaleIPs"]

    async def test_up_without_a_key_shows_where_to_go(self, machine: Machine, server: Server) -> None:
        result = await machine.run("up", f"--login-server={server.url}", "--qr", "--timeout=3s")
        assert result.exit_code == 1
        assert f"To authenticate, visit:\n\n\t{server.url}/register/" in result.stderr
        assert "█" in result.stderr
        assert "not up after 3 s" in result.stderr
        status = await machine.run("status")
        assert status.stdout.startswith(f"Logged out.\nLog in at: {server.url}/register/")


def test_no_name_of_another_machine_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("web\x1b[2J\x9b1m\x07\u202e end\tof\nline █")
    assert capsys.readouterr().out == "web\ufffd[2J\ufffd1m\ufffd\ufffd end\tof\nline █\n"


class TestWords:
    PEER: dict[str, Any] = {
        "TxBytes": 0,
        "RxBytes": 0,
        "Online": True,
        "Active": False,
        "CurAddr": "",
        "Relay": "trenza",
        "LastSeen": "0001-01-01T00:00:00Z",
        "Expired": False,
    }

    @pytest.mark.parametrize(
        ("members", "text"),
        [
            ({}, "-"),
            ({"TxBytes": 5}, "idle, tx 5 rx 0"),
            ({"Active": True, "TxBytes": 5}, 'active; relay "trenza", tx 5 rx 0'),
            ({"Active": True, "CurAddr": "192.0.2.1:9"}, "active; direct 192.0.2.1:9"),
            ({"Online": False}, "offline"),
            ({"Online": False, "LastSeen": "2026-06-01T11:00:00Z"}, "offline, last seen 1h ago"),
            ({"Expired": True}, "-; key expired"),
        ],
    )
    def test_a_connection_in_the_words_of_tailscale(self, members: dict[str, Any], text: str) -> None:
        assert connection(self.PEER | members, NOW) == text

    @pytest.mark.parametrize(
        ("seen", "text"),
        [
            ("2026-06-01T11:59:50Z", ", last seen just now"),
            ("2026-06-01T11:30:00Z", ", last seen 30m ago"),
            ("2026-05-20T12:00:00Z", ", last seen 12d ago"),
        ],
    )
    def test_how_long_ago(self, seen: str, text: str) -> None:
        assert last_seen(seen, NOW) == text

    def test_a_pong_through_the_relay(self) -> None:
        pong = {
            "NodeName": "web",
            "NodeIP": "100.64.0.2",
            "DERPRegionCode": "trenza",
            "LatencySeconds": 0.0123,
        }
        assert describe_ping(pong) == "pong from web (100.64.0.2) via DERP(trenza) in 12ms"

    def test_a_network_without_udp(self) -> None:
        report = {
            "Now": "2026-06-01T12:00:00Z",
            "UDP": False,
            "GlobalV4": "",
            "GlobalV6": "",
            "IPv6": False,
            "OSHasIPv6": True,
            "MappingVariesByDestIP": None,
            "PreferredDERP": 0,
            "RegionLatency": {},
            "Regions": {},
        }
        text = describe_netcheck(report, verbose=False)
        assert "UDP: false" in text
        assert "Nearest DERP: unknown (no response to latency probes)" in text
