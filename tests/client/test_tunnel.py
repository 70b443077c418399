"""The data plane's order of things: safe on the way up, nothing left on the way down."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from client.errors import EngineError, SetupError
from client.prefs import Prefs
from client.tunnel import Keys, Ports, choose_port, free_port, poke, rekeyed_peers
from tests.client.fakes import FakeHost, key, netmap, node
from wire.keys import DiscoPrivate

KEYS = Keys(node=key(1), disco=DiscoPrivate.generate(b"d" * 32))


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


async def brought_up(host: FakeHost, **options: object) -> object:
    tunnel = host.make_tunnel(lambda _: None, lambda _: None)
    await tunnel.up(netmap(node(2)), KEYS, ports=Ports(), prefs=Prefs())
    return tunnel


async def test_the_filter_stands_before_the_interface_is_made(host: FakeHost) -> None:
    await brought_up(host)
    assert host.journal.steps == ["filter", "interface", "link up", "paths"]


async def test_what_fails_on_the_way_up_is_taken_down_again(host: FakeHost) -> None:
    host.router.failure = SetupError("no")
    with pytest.raises(SetupError):
        await brought_up(host)
    assert host.journal.steps == ["filter", "interface", "no interface", "no filter"]
    assert not host.engine.running


async def test_down_leaves_nothing(host: FakeHost) -> None:
    tunnel = await brought_up(host)
    await tunnel.down(keep=False)
    assert host.journal.steps[-3:] == ["no paths", "no interface", "no filter"]
    assert not tunnel.is_up


async def test_an_interface_that_cannot_be_removed_keeps_its_filter(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunnel = await brought_up(host)

    async def stuck(*, keep: bool) -> None:
        raise EngineError("it does not end")

    monkeypatch.setattr(host.engine, "close", stuck)
    with pytest.raises(EngineError):
        await tunnel.down(keep=False)
    assert "no filter" not in host.journal.steps


async def test_letting_go_keeps_filter_and_interface(host: FakeHost) -> None:
    tunnel = await brought_up(host)
    await tunnel.down(keep=True)
    assert host.journal.steps[-1] == "no interface"
    assert host.engine.closed_keeping is True


async def test_the_filter_closes_before_peers_are_told(host: FakeHost) -> None:
    tunnel = await brought_up(host)
    newer = netmap(node(3))
    await tunnel.apply(newer, KEYS.node, prefs=Prefs(shields_up=True))
    assert host.firewall.shields_up
    assert host.sock is not None
    assert host.sock.netmap is newer
    assert host.journal.steps[-1] == "routes"


async def test_a_new_node_key_reaches_wireguard_and_the_relays(host: FakeHost) -> None:
    tunnel = await brought_up(host)
    await tunnel.apply(netmap(node(2)), key(9), prefs=Prefs())
    assert host.engine.key == key(9)
    assert host.sock is not None
    assert host.sock.node_key == key(9)
    assert (await host.engine.status()).listen_port == tunnel.listen_port


async def test_a_running_interface_keeps_its_port(host: FakeHost) -> None:
    host.engine.running = True
    await host.engine.set_key(KEYS.node, listen_port=50123, fwmark=1)
    tunnel = await brought_up(host)
    assert tunnel.listen_port == 50123


def test_a_port_that_is_asked_for_and_taken_is_one_line() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 0))
        port = other.getsockname()[1]
        with pytest.raises(SetupError, match=f"UDP port {port} is taken"):
            choose_port(Ports(asked=port), running=0)
        assert choose_port(Ports(asked=port), running=port) == port
        assert choose_port(Ports(kept=port), running=0) != port


def test_the_kept_port_is_taken_again_while_it_is_free() -> None:
    port = free_port()
    assert choose_port(Ports(kept=port), running=0) == port


def test_a_random_port_is_neither_the_one_asked_for_nor_the_kept_one() -> None:
    ports = Ports(asked=free_port(), kept=free_port(), random=True)
    for running in (0, ports.asked, ports.kept):
        assert choose_port(ports, running) not in (0, ports.asked, ports.kept)
    assert choose_port(ports, running=50123) == 50123  # it is random already, and peers know it


def test_a_peer_is_greeted_by_the_version_that_both_have() -> None:
    sent: list[tuple[int, str]] = []

    class Noting:
        def __init__(self, version: int) -> None:
            self.version = version

        def sendto(self, content: bytes, place: tuple[str, int]) -> None:
            sent.append((self.version, place[0]))

    both, only_six = node(2), replace(node(3), addresses=("fd7a:115c:a1e0::3/128",))
    poke({4: Noting(4), 6: Noting(6)}, [both, only_six])  # type: ignore[dict-item]
    poke({6: Noting(6)}, [both])  # type: ignore[dict-item]
    assert sent == [(4, "100.64.0.2"), (6, "fd7a:115c:a1e0::3"), (6, "fd7a:115c:a1e0::2")]


def test_peers_that_rotated_are_known_by_their_node() -> None:
    before = netmap(node(2), node(3))
    after = netmap(node(2, public=key(7).public()), node(3), node(4))
    assert [peer.id for peer in rekeyed_peers(before, after)] == [2]
    assert rekeyed_peers(None, after) == []
