"""Which way names are led here; a stand-in of resolved's command writes down what it is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from client.errors import SetupError
from client.net import resolved
from client.net.hostdns import HostConfig, HostDns

CONFIG = HostConfig("100.100.100.100", search=("tail.example",), match=("tail.example", "x.example"))
EVERYTHING = HostConfig("100.100.100.100", everything=True)
SCRIPT = """#!/bin/sh
echo "$@" >> {log}
[ -e {log}.broken ] && {{ echo "Failed to set: nobody home" >&2; exit 1; }}
[ "$1" = dns ] && [ $# = 2 ] && cat {log}.dns
[ "$1" = dns ] && [ $# = 3 ] && echo "Link 3 ($2): $3" > {log}.dns
[ "$1" = revert ] && : > {log}.dns
exit 0
"""


class Host:
    """A host with or without systemd-resolved."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.log = folder / "etc" / "resolv.conf", folder / "log"
        (folder / "state").mkdir()
        self.path.parent.mkdir()
        self.run = folder / "run"
        self.run.mkdir()
        self.dns = HostDns("lo", folder / "state", path=self.path)
        (folder / "bin").mkdir()
        command = folder / "bin" / "resolvectl"
        command.write_text(SCRIPT.format(log=self.log))
        command.chmod(0o755)
        (folder / "log.dns").touch()
        monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(resolved, "FOLDER", self.run)
        monkeypatch.setattr(resolved, "UPLINK", self.run / "resolv.conf")
        (self.run / "resolv.conf").write_text("nameserver 192.168.1.1\n")
        (self.run / "stub-resolv.conf").write_text("nameserver 127.0.0.53\n")

    def resolved_forgets(self) -> None:
        Path(f"{self.log}.dns").write_text("")

    def resolved_is_broken(self, broken: bool = True) -> None:
        path = Path(f"{self.log}.broken")
        path.touch() if broken else path.unlink()

    @property
    def told(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def under_resolved(host: Host) -> None:
    host.path.symlink_to(host.run / "stub-resolv.conf")


async def test_resolved_is_told_where_it_rules(host: Host) -> None:
    under_resolved(host)
    await host.dns.install(CONFIG)
    assert host.dns.manager == "systemd-resolved"
    assert host.path.is_symlink()
    for line in (
        "domain lo tail.example ~x.example",
        "default-route lo no",
        "dns lo 100.100.100.100",
        "dnsovertls lo no",
    ):
        assert line in host.told
    assert await host.dns.is_installed()
    assert host.dns.base() == ("192.168.1.1",)
    await host.dns.install(EVERYTHING)
    assert "domain lo ~." in host.told
    assert "default-route lo yes" in host.told
    await host.dns.remove()
    assert "revert lo" in host.told
    assert host.dns.manager == ""
    assert host.path.is_symlink()


async def test_a_resolved_that_forgot_us_is_noticed(host: Host) -> None:
    under_resolved(host)
    await host.dns.install(CONFIG)
    host.resolved_forgets()
    assert not await host.dns.is_installed()
    await host.dns.install(CONFIG)
    assert await host.dns.is_installed()


async def test_a_stub_by_address_is_resolved_too(host: Host) -> None:
    host.path.write_text("nameserver 127.0.0.53\noptions edns0\n")
    await host.dns.install(CONFIG)
    assert host.dns.manager == "systemd-resolved"


async def test_without_an_answer_from_resolved_the_file_is_written(host: Host) -> None:
    under_resolved(host)
    host.resolved_is_broken()
    await host.dns.install(CONFIG)
    assert host.dns.manager == "resolv.conf"
    assert host.dns.base() == ("127.0.0.53",)
    await host.dns.remove()
    assert host.path.is_symlink()


async def test_what_resolved_refuses_is_said_in_its_words(host: Host) -> None:
    under_resolved(host)
    await host.dns.install(CONFIG)
    host.resolved_is_broken()
    with pytest.raises(SetupError, match="refuses: Failed to set: nobody home"):
        await host.dns.install(EVERYTHING)
    assert not await host.dns.is_installed()
    await host.dns.remove()


async def test_after_a_kill_who_rules_is_seen_behind_our_own_file(host: Host, tmp_path: Path) -> None:
    """A file of a killed daemon hides that resolved has come to rule meanwhile."""
    under_resolved(host)
    host.resolved_is_broken()
    await host.dns.install(CONFIG)
    assert not host.path.is_symlink()
    host.resolved_is_broken(False)
    again = HostDns("lo", tmp_path / "state", path=host.path)
    await again.install(CONFIG)
    assert again.manager == "systemd-resolved"
    assert host.path.is_symlink()


async def test_an_interface_that_is_gone_needs_no_reverting(host: Host, tmp_path: Path) -> None:
    under_resolved(host)
    dns = HostDns("gone0", tmp_path / "state", path=host.path)
    await dns.install(CONFIG)
    await dns.remove()
    assert "revert gone0" not in host.told
