"""The state folder: whole or refused, private, one daemon at a time, never a new identity in silence."""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import StoreError
from client.identity import Identity
from client.prefs import Prefs
from client.store import NETMAP, NODE, PREFS, Store
from tests.client.fakes import key, netmap, node
from tests.examples import examples
from wire.keys import MachinePrivate, MachinePublic

SERVER = "https://vpn.example.com"
SERVER_KEY = MachinePublic(b"s" * 32)
IDENTITY = Identity(
    machine=MachinePrivate.generate(b"m" * 32),
    node=key(1),
    listen_port=41641,
    control_url=SERVER,
    control_key=SERVER_KEY,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    opened = Store(folder)
    opened.open()
    yield opened
    opened.close()


def reopened(folder: Path) -> Store:
    store = Store(folder)
    store.open()
    store.close()
    return store


def joined(store: Store) -> None:
    store.set_identity(node=key(1), control_url=SERVER, control_key=SERVER_KEY)


def test_a_first_start_makes_an_identity_that_stays(store: Store, folder: Path) -> None:
    first = store.identity
    store.close()
    assert reopened(folder).identity == first
    assert first.node is None


def test_files_and_folder_are_private(store: Store, folder: Path) -> None:
    joined(store)
    store.set_prefs(Prefs(hostname="x"))
    store.save_netmap(netmap())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_prefs_stay(store: Store, folder: Path) -> None:
    store.set_prefs(Prefs(hostname="web", shields_up=True))
    store.close()
    assert reopened(folder).prefs == Prefs(hostname="web", shields_up=True)


def test_a_second_daemon_is_refused_at_once(store: Store, folder: Path) -> None:
    code = f"from client.store import Store; from pathlib import Path; Store(Path({str(folder)!r})).open()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another trenzad already runs on the state folder" in done.stderr


def test_a_pending_key_is_on_disk_before_anybody_hears_of_it(store: Store, folder: Path) -> None:
    joined(store)
    pending = store.new_node_key(rotating=True)
    store.close()
    identity = reopened(folder).identity
    assert (identity.node, identity.pending, identity.rotating) == (key(1), pending, True)


def test_an_adopted_key_replaces_the_old_one(store: Store) -> None:
    joined(store)
    pending = store.new_node_key(rotating=True)
    store.adopt_pending(control_url="https://new.example.com")
    assert (store.identity.node, store.identity.pending, store.identity.rotating) == (pending, None, False)
    assert store.identity.control_url == "https://new.example.com"


def test_an_identity_that_is_missing_beside_other_files_is_not_made_anew(store: Store, folder: Path) -> None:
    store.set_prefs(Prefs())
    store.close()
    (folder / NODE).unlink()
    with pytest.raises(StoreError, match=r"node\.json is missing"):
        reopened(folder)
    assert not (folder / NODE).exists()


@pytest.fixture(scope="module")
def whole() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name))
        store.open()
        store._write(store.place / NODE, IDENTITY.to_json())
        store.close()
        return (Path(name) / NODE).read_bytes()


@settings(max_examples=examples(5))
@given(data=st.data())
def test_a_damaged_identity_starts_unchanged_or_says_which_file(whole: bytes, data: st.DataObject) -> None:
    """Cut, flip or overwrite: the identity is as it was, or the daemon refuses and changes nothing."""
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged[at : at + data.draw(st.integers(1, 40))] = data.draw(st.binary(max_size=40))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / NODE
        path.write_bytes(bytes(damaged))
        store = Store(Path(name))
        refusal = ""
        try:
            store.open()
            assert store.identity == IDENTITY
        except StoreError as error:
            refusal = str(error)
        finally:
            store.close()
        assert not refusal or (str(path) in refusal and "\n" not in refusal)
        assert path.read_bytes() == bytes(damaged)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"Hostname": 3}', b'{"Nonsense": 1}'])
def test_damaged_prefs_are_an_error_that_names_the_file(store: Store, folder: Path, content: bytes) -> None:
    store.close()
    (folder / PREFS).write_bytes(content)
    with pytest.raises(StoreError, match=r"prefs\.json is damaged"):
        reopened(folder)


def test_a_state_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use the state folder"):
        reopened(tmp_path / "file" / "state")


class TestCachedNetmap:
    def test_it_comes_back_as_it_was(self, store: Store) -> None:
        joined(store)
        shown = netmap(node(2), node(3, online=True), own=node(1, hostinfo={"Hostname": "a"}))
        store.save_netmap(shown)
        assert store.load_netmap() == shown

    @pytest.mark.parametrize(
        "change",
        [
            {"control_url": "https://other.example.com"},
            {"control_key": MachinePublic(b"o" * 32)},
            {"node": key(9)},
        ],
    )
    def test_it_belongs_to_one_server_and_one_key(self, store: Store, change: dict[str, object]) -> None:
        joined(store)
        store.save_netmap(netmap(node(2)))
        store.set_identity(**change)
        assert store.load_netmap() is None

    @settings(max_examples=examples(2))
    @given(data=st.data())
    def test_a_damaged_one_is_lost_without_harm(self, data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as name:
            store = Store(Path(name))
            store.open()
            joined(store)
            store.save_netmap(netmap(node(2)))
            path = Path(name) / NETMAP
            damaged = bytearray(path.read_bytes())
            at = data.draw(st.integers(0, len(damaged) - 1))
            damaged[at:] = data.draw(
                st.sampled_from([b"", bytes(damaged[at + 1 :]), b"}" + bytes(damaged[at:])])
            )
            path.write_bytes(bytes(damaged))
            loaded = store.load_netmap()
            assert loaded is None or loaded.node.id == 1
            store.close()

    def test_it_can_be_forgotten(self, store: Store) -> None:
        joined(store)
        store.save_netmap(netmap())
        store.forget_netmap()
        store.forget_netmap()
        assert store.load_netmap() is None

    def test_one_that_was_edited_is_not_believed(self, store: Store, folder: Path) -> None:
        joined(store)
        store.save_netmap(netmap(node(2)))
        path = folder / NETMAP
        path.write_bytes(path.read_bytes().replace(b"100.64.0.2", b"100.64.0.3"))
        assert store.load_netmap() is None
