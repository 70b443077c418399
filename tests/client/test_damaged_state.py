"""Whatever happened to the state folder: trenzad starts as itself, or says which file is wrong and stops."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.backend import Backend
from client.errors import StoreError
from client.identity import Identity
from client.prefs import Prefs
from client.state import State, state_of
from client.store import LOCK, NETMAP, NODE, PREFS, Store
from tests.client.fakes import key, netmap, node
from tests.examples import examples
from wire.keys import MachinePrivate, MachinePublic

SERVER = "https://vpn.example.com"
IDENTITY = Identity(
    machine=MachinePrivate.generate(b"m" * 32),
    node=key(1),
    listen_port=41641,
    control_url=SERVER,
    control_key=MachinePublic(b"s" * 32),
)
FILES = (NODE, PREFS, NETMAP, LOCK)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def whole() -> Iterator[Path]:
    """The folder of a node that has joined and seen peers."""
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name))
        store.open()
        store.set_identity(**{field: getattr(IDENTITY, field) for field in IDENTITY.__slots__})
        store.set_prefs(Prefs(control_url=SERVER, want_running=True, hostname="box"))
        store.save_netmap(netmap(node(2), node(3)))
        store.close()
        yield Path(name)


def cut(data: bytes, draw: Any) -> bytes:
    return data[: draw(st.integers(0, max(0, len(data) - 1)))]


def flip(data: bytes, draw: Any) -> bytes:
    if not data:
        return b"\0"
    at, bit = draw(st.integers(0, len(data) - 1)), draw(st.integers(0, 7))
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def overwrite(data: bytes, draw: Any) -> bytes:
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(min_size=1, max_size=40)) + data[at + draw(st.integers(0, 40)) :]


def zeros(data: bytes, draw: Any) -> bytes:
    """What some file systems leave of a file after a power cut."""
    at = draw(st.integers(0, len(data)))
    return data[:at] + bytes(len(data) - at)


def other_value(data: bytes, draw: Any) -> bytes:
    """Still JSON, with one member of another kind, or missing, or one more."""
    try:
        content = json.loads(data)
    except ValueError:
        return b"{}"
    place = content
    while isinstance(place, dict | list) and place:
        at = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[at], dict | list) or not place[at] or draw(st.booleans()):
            if draw(st.booleans()):
                place[at] = draw(VALUES)
            else:
                del place[at]
            break
        place = place[at]
    return json.dumps(content).encode()


DAMAGES = (cut, flip, overwrite, zeros, other_value)


def damage(folder: Path, draw: Any) -> None:
    """Do something bad to one or two files."""
    for name in draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=2, unique=True)):
        path, how = folder / name, draw(st.sampled_from([*DAMAGES, "remove", "folder"]))
        if how == "remove":
            path.unlink()
        elif how == "folder":
            path.unlink()
            path.mkdir()
        else:
            path.write_bytes(how(path.read_bytes(), draw))


@settings(max_examples=examples(5))
@given(data=st.data())
def test_it_starts_as_itself_or_says_why_not(whole: Path, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "state"
        shutil.copytree(whole, folder)
        damage(folder, data.draw)
        node_file = folder / NODE
        before = node_file.read_bytes() if node_file.is_file() else None
        store, refusal = Store(folder), ""
        try:
            store.open()
        except StoreError as error:
            refusal = str(error)
        else:
            assert store.identity == IDENTITY
            starts(store)
        finally:
            store.close()
        assert not refusal or (str(folder) in refusal and "\n" not in refusal)
        assert (node_file.read_bytes() if node_file.is_file() else None) == before


def starts(store: Store) -> None:
    """The backend comes to a state by what is there; a cached netmap is the one that was kept, or none."""

    class NoTunnel:
        is_up = False
        sock = None
        troubles: tuple[str, ...] = ()

    backend = Backend(store=store, make_tunnel=lambda *_: NoTunnel())  # type: ignore[arg-type, return-value]
    netmap = backend.netmaps.load()
    assert netmap is None or netmap.peers.keys() == {2, 3}
    assert state_of(replace(backend.facts, started=True)) in (State.STARTING, State.STOPPED)
    assert isinstance(backend.health(), list)
