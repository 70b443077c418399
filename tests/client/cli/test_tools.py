"""``trenza wait metrics bugreport nc ssh``: in front of a daemon whose host is only remembered."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from client.cli.ssh import host_keys, known_hosts, options, target
from client.hostinfo import ssh_host_keys
from client.metrics import Growing, Traffic
from client.peerapi.api import PeerAPI
from client.peerapi.send import connect_here
from tests.client.cli.test_cli import Machine, joined, machine
from tests.client.peerapi.tailnet import no_names

__all__ = ["joined", "machine"]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHmZ"
WEB = {
    "DNSName": "web.tail.example.",
    "TailscaleIPs": ["100.64.0.2", "fd7a:115c:a1e0::2"],
    "sshHostKeys": [KEY, "ssh-rsa AAAA comment", "forged\nevil ssh-rsa A", "one-word"],
}


class TestWait:
    async def test_it_returns_once_the_node_runs(
        self, joined: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("client.cli.wait.is_bindable", lambda address: True)
        assert await joined.says("wait", "--timeout=10s") == ""

    async def test_it_says_what_is_missing(self, machine: Machine) -> None:
        assert await machine.refuses("wait", "--timeout=300ms") == (
            "trenza: not up after 0.3 s: the state is NeedsLogin"
        )

    async def test_addresses_must_be_there(self, joined: Machine) -> None:
        assert "the interface has no address yet" in await joined.refuses("wait", "--timeout=500ms")

    async def test_the_daemon_may_come_later(self, machine: Machine) -> None:
        await machine.door.close()
        assert "trenzad is not running" in await machine.refuses("wait", "--timeout=300ms")


class TestMetrics:
    async def test_they_are_prometheus_text(self, joined: Machine) -> None:
        text = await joined.says("metrics")
        assert text == await joined.says("metrics", "print")
        line = re.compile(r'(# (HELP|TYPE) trenzad_\w+ .+|trenzad_\w+(\{\w+="\w+"\})? [\d.]+)')
        assert all(line.fullmatch(one) for one in text.splitlines())
        assert 'trenzad_inbound_bytes_total{path="direct"} 35' in text  # two peers of 20, of it 5 relayed
        assert 'trenzad_outbound_bytes_total{path="derp"} 3' in text
        assert "trenzad_peers 2" in text
        assert "trenzad_peers_online 1" in text

    async def test_they_can_be_written_to_a_file(self, joined: Machine, tmp_path: Path) -> None:
        path = tmp_path / "trenza.prom"
        await joined.says("metrics", "write", str(path))
        text = await asyncio.to_thread(path.read_text)
        assert "trenzad_peers 2\n" in text
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
        assert "cannot write" in await joined.refuses("metrics", "write", "/nothing/here/x.prom")

    async def test_they_are_there_before_anything_is(self, machine: Machine) -> None:
        text = await machine.says("metrics")
        assert "trenzad_peers 0" in text
        assert "trenzad_control_connected 0" in text

    def test_counters_never_fall(self) -> None:
        counter = Growing()
        readings: list[dict[object, int]] = [{1: 10}, {1: 15, 2: 5}, {2: 7}, {1: 3, 2: 7}, {1: 4}]
        assert [counter.see(reading) for reading in readings] == [10, 20, 22, 25, 26]

    def test_what_is_relayed_is_not_direct(self) -> None:
        traffic = Traffic()
        traffic.see({}, (7, 9))
        assert list(traffic.samples("inbound")) == [({"path": "direct"}, 0), ({"path": "derp"}, 7)]


class TestBugreport:
    async def test_the_marker_is_in_the_log_and_no_secret(
        self, joined: Machine, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        marker = (await joined.says("bugreport", "--diagnose", "it is\nbroken")).strip()
        assert re.fullmatch(r"BUG-n1-\d{14}Z-[0-9a-f]{16}", marker)
        text = "\n".join(record.getMessage() for record in caplog.records if "bugreport" in record.name)
        assert f"user bugreport: {marker}" in text
        assert "note: it is broken" in text
        assert "peer nodekey:" in text
        identity = joined.store.identity
        assert identity.node is not None
        for secret in (identity.node, identity.machine):
            assert secret.text().partition(":")[2] not in text

    async def test_two_marks_enclose_the_trouble(self, machine: Machine) -> None:
        result = await machine.run("bugreport", "--record", stdin=b"\n")
        marks = [line for line in result.stdout.splitlines() if line.startswith("BUG-none-")]
        assert len(set(marks)) == 2


class TestConnections:
    @pytest.fixture
    async def echo(self, joined: Machine, tmp_path: Path) -> AsyncIterator[int]:
        """A port of the peer ``web`` that gives everything back."""

        async def give_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read())
            writer.close()

        server = await asyncio.start_server(give_back, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        def connect(address: str, _: int, /) -> Any:
            assert address == "100.64.0.2"
            return connect_here("127.0.0.1", port)

        joined.backend.peerapi = PeerAPI(
            joined.backend.in_force, lambda: tmp_path, resolve=no_names, connect=connect
        )
        yield port
        server.close()

    async def nc(self, machine: Machine, *arguments: str, data: bytes) -> tuple[bytes, bytes]:
        command = [sys.executable, "-m", "client.cli", "--socket", str(machine.door.path), "nc", *arguments]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return await process.communicate(data)

    async def test_bytes_go_both_ways(self, joined: Machine, echo: int) -> None:
        data = os.urandom(300_000)
        assert await self.nc(joined, "web", "22", data=data) == (data, b"")

    async def test_only_peers_are_connected_to(self, joined: Machine, echo: int) -> None:
        _, errors = await self.nc(joined, "192.0.2.1", "22", data=b"")
        assert b"no peer" in errors


class TestSSH:
    def test_keys_that_could_forge_a_line_are_left_out(self) -> None:
        assert host_keys(WEB) == [KEY, "ssh-rsa AAAA comment"]

    def test_known_hosts_have_names_and_addresses(self) -> None:
        forged = WEB | {"DNSName": "a b\n* ssh-rsa evil.", "TailscaleIPs": ["100.64.0.9"]}
        assert known_hosts([WEB, forged]).splitlines() == [
            f"100.64.0.9 {KEY}",
            "100.64.0.9 ssh-rsa AAAA comment",
            f"web.tail.example,100.64.0.2,fd7a:115c:a1e0::2 {KEY}",
            "web.tail.example,100.64.0.2,fd7a:115c:a1e0::2 ssh-rsa AAAA comment",
        ]

    @pytest.mark.parametrize("name", ["-oProxyCommand=id.", "*.", "a b.", "a\nb.", "!x.", "é.", "a,b.", ""])
    def test_a_name_cannot_be_an_option(self, name: str) -> None:
        peer = WEB | {"DNSName": name}
        assert target("root", peer) == "root@100.64.0.2"
        assert "HostKeyAlias" not in " ".join(options(peer, None, None))

    def test_a_known_key_is_the_only_one(self) -> None:
        with_key = " ".join(options(WEB, Path("/x y/known"), None))
        assert 'UserKnownHostsFile "/x y/known"' in with_key
        assert "StrictHostKeyChecking yes" in with_key
        assert "HostName 100.64.0.2" in with_key
        assert "Strict" not in " ".join(options(WEB, None, None))

    async def test_ssh_is_run_with_the_rest(
        self, joined: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        ran: list[list[str]] = []
        monkeypatch.setattr("client.cli.ssh.shutil.which", lambda name: f"/usr/bin/{name}")
        monkeypatch.setattr("client.cli.ssh.os.execv", lambda program, command: ran.append(command))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        await joined.says("ssh", "root@web", "-v", "uptime", "--pretty")
        (command,) = ran
        assert command[0] == "/usr/bin/ssh"
        assert command[-4:] == ["root@web.tail.example", "-v", "uptime", "--pretty"]
        assert "no peer 'nobody'" in await joined.refuses("ssh", "nobody")
        assert "is this machine" in await joined.refuses("ssh", "me")

    def test_the_hosts_own_keys_are_told_without_comments(self, tmp_path: Path) -> None:
        (tmp_path / "ssh_host_ed25519_key.pub").write_text(f"{KEY} root@secret-name\n")
        (tmp_path / "ssh_host_rsa_key.pub").write_bytes(b"\xff\xfe")
        (tmp_path / "ssh_host_rsa_key").write_text("PRIVATE")
        assert ssh_host_keys(tmp_path) == (KEY,)
