"""``trenza file``: to a peer and from one, whole daemons between, only the tunnel is loopback."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from client.cli.file import progress, target_name
from client.localapi.client import DaemonError
from client.peerapi.api import PeerAPI
from client.peerapi.rights import FILE_SHARING
from client.peerapi.send import connect_here
from client.store import Store
from tests.client.cli.test_cli import Machine, machine_in
from tests.client.fakes import key, netmap, node
from tests.client.peerapi.tailnet import ANN, BOB, OWN, Peers, no_names, peers_of, tailnet
from wire.netmap import UserProfile

LETTER = bytes(range(256)) * 1000
SERVICES = {"OS": "linux", "Services": [{"Proto": "peerapi4", "Port": 40001}]}


@pytest.fixture
async def laptop(tmp_path: Path) -> AsyncIterator[Peers]:
    """The other end: node 1 of the netmap of :mod:`tests.client.peerapi.tailnet`."""
    async with peers_of(tmp_path / "laptop", tailnet()) as made:
        yield made


@pytest.fixture
async def machine(tmp_path: Path, laptop: Peers) -> AsyncIterator[Machine]:
    """Ann's node 2 (as the laptop sees it), which knows the laptop as ``me`` and other peers."""
    store = Store(tmp_path / "state")
    store.open()
    url = "http://127.0.0.1:1"
    store.set_identity(node=key(2), control_url=url)
    store.set_prefs(store.prefs.edited({"WantRunning": True, "ControlURL": url}))
    shown = netmap(
        node(1, name="me.tail.example.", user=ANN, online=True, hostinfo=SERVICES),
        node(3, name="other.tail.example.", user=BOB, online=True, hostinfo=SERVICES),
        node(4, name="old.tail.example.", user=ANN, online=False, hostinfo={"OS": "linux"}),
        own=node(2, name="pc.tail.example.", user=ANN, public=key(2).public(), cap_map={FILE_SHARING: None}),
        user_profiles={ANN: UserProfile(id=ANN, login_name="ann@example.com")},
    )
    store.save_netmap(shown)
    store.close()

    def connect(address: str, port: int, /) -> Any:
        assert (address, port) == (str(OWN), 40001)
        laptop.came = "100.64.0.2"
        return connect_here("127.0.0.1", laptop.port)

    async def no_listener(accept: Any, address: str, port: int, /) -> Any:
        raise OSError("this host is only remembered")

    async with machine_in(tmp_path) as made:
        made.backend.peerapi = PeerAPI(
            made.backend.in_force,
            lambda: tmp_path / "files",
            resolve=no_names,
            listen=no_listener,
            connect=connect,
        )
        await made.backend.settle()
        yield made


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    path = tmp_path / "letter é.txt"
    path.write_bytes(LETTER)
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestSending:
    async def test_a_file_arrives_under_its_name(self, machine: Machine, laptop: Peers, letter: Path) -> None:
        for target in ("me:", "me.tail.example:", "100.64.0.1:", "[fd7a:115c:a1e0::1]:"):
            assert await machine.says("file", "cp", str(letter), target) == ""
        assert laptop.files() == {letter.name: LETTER}

    async def test_it_may_have_another_name_and_be_talked_about(
        self, machine: Machine, laptop: Peers, letter: Path
    ) -> None:
        result = await machine.run("file", "cp", "-v", "--name", "b.bin", str(letter), "me:")
        assert (result.exit_code, result.stdout) == (0, "")
        assert "sending 'b.bin'" in result.stderr
        assert "sent 'b.bin'" in result.stderr
        assert list(laptop.files()) == ["b.bin"]

    async def test_several_go_one_after_another(
        self, machine: Machine, laptop: Peers, letter: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").write_bytes(b"")
        await machine.says("file", "cp", str(letter), str(tmp_path / "empty"), "me:")
        assert laptop.files() == {"empty": b"", letter.name: LETTER}

    async def test_standard_input_has_no_length(self, machine: Machine, laptop: Peers) -> None:
        text = b"a line\n" * 20_000
        result = await machine.run("file", "cp", "-", "me:", stdin=text)
        assert result.exit_code == 0, result.stderr
        assert laptop.files() == {"stdin.txt": text}
        await machine.run("file", "cp", "-", "me:", stdin=b"\xff\xfe")
        assert laptop.files()["stdin"] == b"\xff\xfe"

    async def test_what_is_there_is_not_sent_again(
        self, machine: Machine, laptop: Peers, letter: Path
    ) -> None:
        content = LETTER
        for begun in (content[:100_000], content[:70_000] + b"x" * 50_000, content + b"too much"):
            laptop.inbox.mkdir(parents=True, exist_ok=True)
            partial = laptop.inbox / f"{letter.name}.n2.partial"
            partial.write_bytes(begun)
            inode = partial.stat().st_ino
            await machine.says("file", "cp", str(letter), "me:")
            assert laptop.files() == {letter.name: content}
            assert (laptop.inbox / letter.name).stat().st_ino == inode
            (laptop.inbox / letter.name).unlink()

    async def test_targets_are_ones_own_devices(self, machine: Machine) -> None:
        assert await machine.says("file", "cp", "--targets") == "100.64.0.1\tme\n"

    async def test_what_cannot_be_is_said(self, machine: Machine, laptop: Peers, letter: Path) -> None:
        assert "owned by a different user" in await machine.refuses("file", "cp", str(letter), "other:")
        assert "not advertising" in await machine.refuses("file", "cp", str(letter), "old:")
        assert "no peer 'nobody'" in await machine.refuses("file", "cp", str(letter), "nobody:")
        assert "cannot read" in await machine.refuses("file", "cp", "/nothing/here", "me:")
        assert "is a directory" in await machine.refuses("file", "cp", "/", "me:")
        assert "invalid filename" in await machine.refuses("file", "cp", "--name", "a:b", str(letter), "me:")
        assert laptop.files() == {}
        for wrong in (["me:"], [str(letter), "me"], ["-", str(letter), "me:"], [str(letter), "::1:"]):
            assert (await machine.run("file", "cp", *wrong)).exit_code == 2

    async def test_the_peers_no_is_passed_on(self, machine: Machine, laptop: Peers, letter: Path) -> None:
        laptop.netmap = tailnet(node(2, user=BOB))
        big = letter.with_name("big")
        big.write_bytes(bytes(20_000_000))
        assert "takes no files of yours" in await machine.refuses("file", "cp", str(big), "me:")
        await laptop.api.serve_on([])
        await laptop.api.serve_on([OWN])

    async def test_a_peer_that_is_away_is_no_hang(
        self, machine: Machine, laptop: Peers, letter: Path
    ) -> None:
        port = laptop.port
        await laptop.api.serve_on([])

        @contextlib.asynccontextmanager
        async def refused(address: str, _: int, /) -> AsyncIterator[Any]:
            async with connect_here("127.0.0.1", port) as streams:
                yield streams

        assert machine.backend.peerapi is not None
        machine.backend.peerapi.connect = refused
        assert "cannot reach the peer" in await machine.refuses("file", "cp", str(letter), "me:")


class TestReceiving:
    @pytest.fixture
    def inbox(self, tmp_path: Path) -> Path:
        folder = tmp_path / "files"
        folder.mkdir()
        (folder / "a.txt").write_bytes(b"new a")
        (folder / "b é.bin").write_bytes(bytes(300_000))
        (folder / "c.n2.partial").write_bytes(b"half")
        return folder

    @pytest.fixture
    def target(self, tmp_path: Path) -> Path:
        folder = tmp_path / "Downloads"
        folder.mkdir()
        return folder

    async def test_files_are_moved(self, machine: Machine, inbox: Path, target: Path) -> None:
        text = await machine.says("file", "get", "-v", str(target))
        assert text.splitlines() == [
            f"wrote a.txt as {target}/a.txt (5 bytes)",
            f"wrote b é.bin as {target}/b é.bin (300000 bytes)",
            "moved 2/2 files",
        ]
        assert (target / "b é.bin").read_bytes() == bytes(300_000)
        assert names_in(inbox) == ["c.n2.partial"]
        assert await machine.says("file", "get", str(target)) == ""

    async def test_by_default_nothing_is_overwritten(
        self, machine: Machine, inbox: Path, target: Path
    ) -> None:
        (target / "a.txt").write_bytes(b"old a")
        assert "refusing to overwrite" in await machine.refuses("file", "get", str(target))
        assert (target / "a.txt").read_bytes() == b"old a"
        assert (inbox / "a.txt").exists()
        assert (target / "b é.bin").exists()
        assert "moved 0/1 files" in await machine.refuses("file", "get", str(target))

    async def test_conflicts_may_be_renamed_or_overwritten(
        self, machine: Machine, inbox: Path, target: Path, tmp_path: Path
    ) -> None:
        (target / "a.txt").write_bytes(b"old a")
        await machine.says("file", "get", "--conflict=rename", str(target))
        assert (target / "a (1).txt").read_bytes() == b"new a"
        (inbox / "a.txt").write_bytes(b"newer a")
        secret = tmp_path / "secret"
        secret.write_bytes(b"kept")
        (target / "a.txt").unlink()
        (target / "a.txt").symlink_to(secret)
        await machine.says("file", "get", "--conflict=overwrite", str(target))
        assert (target / "a.txt").read_bytes() == b"newer a"
        assert secret.read_bytes() == b"kept"

    async def test_they_may_be_thrown_away(self, machine: Machine, inbox: Path) -> None:
        assert await machine.says("file", "get", "-v", "/dev/null") == "deleted 2 files\n"
        assert names_in(inbox) == ["c.n2.partial"]

    async def test_a_folder_is_needed(self, machine: Machine, tmp_path: Path) -> None:
        assert "not a directory" in await machine.refuses("file", "get", str(tmp_path / "none"))

    async def test_the_door_gives_nothing_else(self, machine: Machine, inbox: Path) -> None:
        for name in ("..%2Fstate%2Fnode.json", "c.n2.partial", "%2Fetc%2Fpasswd", "nothing"):
            with pytest.raises(DaemonError, match=r"invalid filename|no such file"):
                await machine.local_get(f"files/{name}")


def test_a_target_ends_in_a_colon() -> None:
    assert target_name("nas:") == "nas"
    assert target_name("[fd7a::1]:") == "fd7a::1"


def test_progress_fits_a_line() -> None:
    line = progress("x" * 50, 5 * 1024**2, 10 * 1024**2, 2.0)
    assert line.startswith("x" * 35 + "…")
    assert "5.00MiB" in line
    assert "2.50MiB/s" in line
    assert line.endswith(" 50.00%    ETA 00:00:02")
