"""/etc/resolv.conf in a folder of its own: written whole, put back as it was, nobody else's file touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from client.errors import SetupError
from client.net import resolvconf
from client.net.hostdns import HostConfig
from client.net.resolvconf import BACKUP, ResolvConf

CONFIG = HostConfig("100.100.100.100", search=("tail.example", "corp.example"), match=("tail.example",))
THEIRS = """# by DHCP
nameserver 192.168.1.1
nameserver fe80::1%eth0
search lan
options edns0 timeout:2
sortlist x
"""


class Etc:
    """A folder /etc and a state folder."""

    def __init__(self, folder: Path) -> None:
        self.path, self.state = folder / "etc" / "resolv.conf", folder / "state"
        self.path.parent.mkdir()
        self.state.mkdir()

    def daemon(self) -> ResolvConf:
        """A new run of the daemon."""
        return ResolvConf(self.path, self.state)

    @property
    def text(self) -> str:
        return self.path.read_text()


@pytest.fixture
def etc(tmp_path: Path) -> Etc:
    made = Etc(tmp_path)
    made.path.write_text(THEIRS)
    return made


async def test_ours_leads_to_us_and_keeps_their_search_and_options(etc: Etc) -> None:
    daemon = etc.daemon()
    await daemon.install(CONFIG)
    lines = etc.text.splitlines()
    assert lines[0].startswith("# Written by trenzad")
    assert [line for line in lines if not line.startswith("#")] == [
        "nameserver 100.100.100.100",
        "search tail.example corp.example lan",
        "options edns0 timeout:2",
    ]
    assert daemon.base() == ("192.168.1.1", "fe80::1%eth0")
    assert await daemon.is_installed()
    assert os.stat(etc.path).st_mode & 0o777 == 0o644
    assert [path.name for path in etc.path.parent.iterdir()] == ["resolv.conf"]


async def test_it_is_put_back_byte_by_byte(etc: Etc) -> None:
    daemon = etc.daemon()
    for _ in range(2):
        await daemon.install(CONFIG)
        await daemon.install(HostConfig("100.100.100.100", everything=True))
        await daemon.remove()
        assert etc.text == THEIRS
        assert not await daemon.is_installed()
        assert not list(etc.state.iterdir())


async def test_the_next_run_puts_back_what_a_killed_one_left(etc: Etc) -> None:
    await etc.daemon().install(CONFIG)
    assert etc.daemon().base() == ("192.168.1.1", "fe80::1%eth0")
    await etc.daemon().install(HostConfig("100.100.100.100", search=("other.example",)))
    assert "other.example" in etc.text
    await etc.daemon().remove()
    assert etc.text == THEIRS


async def test_a_link_is_a_link_again_and_its_target_is_followed(etc: Etc, tmp_path: Path) -> None:
    target = tmp_path / "run.conf"
    target.write_text("nameserver 10.0.0.1\n")
    etc.path.unlink()
    etc.path.symlink_to("../run.conf")
    daemon = etc.daemon()
    await daemon.install(CONFIG)
    assert not etc.path.is_symlink()
    assert target.read_text() == "nameserver 10.0.0.1\n"
    target.write_text("nameserver 10.0.0.2\n")  # whoever keeps it goes on
    assert daemon.base() == ("10.0.0.2",)
    await daemon.remove()
    assert os.readlink(etc.path) == "../run.conf"


async def test_a_newer_file_of_somebody_else_stays(etc: Etc) -> None:
    daemon = etc.daemon()
    await daemon.install(CONFIG)
    etc.path.write_text("nameserver 10.9.9.9\n")
    assert not await daemon.is_installed()
    assert daemon.base() == ("10.9.9.9",)
    await daemon.remove()
    assert etc.text == "nameserver 10.9.9.9\n"
    await daemon.install(CONFIG)
    etc.path.write_text("nameserver 10.8.8.8\n")
    await daemon.install(CONFIG)  # the newer one is what is put back
    await daemon.remove()
    assert etc.text == "nameserver 10.8.8.8\n"


async def test_no_file_at_all(etc: Etc) -> None:
    etc.path.unlink()
    daemon = etc.daemon()
    assert daemon.base() == ()
    await daemon.install(CONFIG)
    assert "nameserver 100.100.100.100" in etc.text
    await daemon.remove()
    assert etc.text == ""


async def test_a_mount_point_is_written_over(etc: Etc, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers mount the file: it cannot be replaced, and its folder may be read-only."""

    def busy(self: Path, target: Path) -> Path:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    daemon = etc.daemon()
    inode = etc.path.stat().st_ino
    await daemon.install(CONFIG)
    assert "nameserver 100.100.100.100" in etc.text
    await daemon.remove()
    assert (etc.text, etc.path.stat().st_ino) == (THEIRS, inode)
    assert [path.name for path in etc.path.parent.iterdir()] == ["resolv.conf"]


async def test_what_cannot_be_written_is_said_in_one_line(etc: Etc, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resolvconf, "_write", full)
    with pytest.raises(SetupError, match=r"No space left on device.*accept-dns=false"):
        await etc.daemon().install(CONFIG)
    assert etc.text == THEIRS
    monkeypatch.undo()
    await etc.daemon().install(CONFIG)
    monkeypatch.setattr(resolvconf, "_write", full)
    with pytest.raises(SetupError, match="it is kept as"):
        await etc.daemon().remove()
    assert (etc.state / BACKUP).read_text() == THEIRS
    monkeypatch.undo()
    await etc.daemon().remove()
    assert etc.text == THEIRS


async def test_a_huge_file_costs_no_more_than_its_bound(etc: Etc) -> None:
    etc.path.write_bytes(b"\xff" * (2 * resolvconf.MAX_BYTES))
    assert etc.daemon().base() == ()
