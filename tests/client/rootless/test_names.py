"""Names for programs behind a proxy: the tailnet's way where it has one, the host's else, or nobody's."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client.dns.service import Dns, wanted_dns
from client.net.hostdns import HostDns
from client.prefixes import IPAddress
from client.prefs import Prefs
from client.proxy.dialer import Unresolved
from client.rootless.names import Names
from client.rootless.ways import Ways
from tests.client.dns.fakes import FakeServer, saying, serving
from tests.client.fakes import netmap, node
from wire.netmap import DNSConfig, Resolver

HOSTS, TAILNETS = "192.0.2.1", "192.0.2.2"


class Scene:
    """``asked`` is what the host's own resolver heard; ``server`` is the tailnet's."""

    def __init__(self, server: FakeServer) -> None:
        self.asked: list[str] = []
        self.server = server
        self.hides = False
        self.dns = Dns(interface="trenza0", host=HostDns("trenza0", Path("/nonexistent")), touch_host=False)
        self.names = Names(self.dns, lambda: self.hides, self.ask_host)

    async def ask_host(self, host: str) -> list[IPAddress]:
        self.asked.append(host)
        return [ipaddress.ip_address(HOSTS)]

    async def follow(self, *, split: bool = False, everything: bool = False, **prefs: object) -> None:
        theirs = (Resolver(address=f"127.0.0.1:{self.server.port}", use_with_exit_node=True),)
        config = DNSConfig(
            proxied=True,
            domains=("tail.example", "corp.example"),
            routes={"tail.example": (), "corp.example": theirs} if split else {"tail.example": ()},
            resolvers=theirs if everything else (),
        )
        made = netmap(node(2), node(3), dns_config=config)
        await self.dns.follow(wanted_dns(made, Prefs(**prefs), "https://vpn.example.com"))  # type: ignore[arg-type]

    async def look_up(self, host: str) -> str:
        return str((await self.names.look_up(host))[0])


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with serving(saying(TAILNETS)) as server:
        made = Scene(server)
        yield made
        await made.dns.stop()


async def test_what_the_tailnet_says_nothing_of_is_the_hosts(scene: Scene) -> None:
    assert await scene.look_up("example.org") == HOSTS
    await scene.follow()
    assert await scene.look_up("example.org") == HOSTS
    assert await scene.look_up("printer") == HOSTS
    with pytest.raises(Unresolved):
        await scene.look_up("nobody.tail.example")
    assert scene.asked == ["example.org", "example.org", "printer"]
    assert scene.server.udp == []


async def test_split_dns_and_nameservers_hold_here_too(scene: Scene) -> None:
    await scene.follow(split=True)
    assert await scene.look_up("www.corp.example") == TAILNETS
    assert await scene.look_up("intranet") == TAILNETS  # by the search domain
    assert await scene.look_up("example.org") == HOSTS
    await scene.follow(everything=True)
    assert await scene.look_up("example.org") == TAILNETS
    await scene.follow(everything=True, accept_dns=False)
    assert await scene.look_up("example.org") == HOSTS


async def test_with_an_exit_node_the_host_is_asked_nothing(scene: Scene) -> None:
    """Be it there or not, and also before and after the resolver knows of it."""
    scene.hides = True
    for accept in (True, False):
        with pytest.raises(Unresolved):
            await scene.look_up("example.org")
        await scene.follow(everything=True, exit_node_id="n3", accept_dns=accept)
        assert await scene.look_up("example.org") == TAILNETS
        await scene.follow(exit_node_id="n9")  # which is no node, and no other resolver is known
        with pytest.raises(Unresolved):
            await scene.look_up("example.org")
        await scene.dns.stop()
    assert scene.asked == []


@pytest.mark.parametrize("host", ["", ".", "a..b", "exämple.org", "x" * 64, "a b"])
async def test_what_is_no_name_does_no_harm(scene: Scene, host: str) -> None:
    await scene.follow(exit_node_id="n3")
    scene.hides = True
    with pytest.raises(Unresolved):
        await scene.look_up(host)
    assert scene.asked == []


async def test_until_something_is_known_everything_is_the_tunnels() -> None:
    ways = Ways("trenza0")
    world, here = ipaddress.ip_address("192.0.2.9"), ipaddress.ip_address("127.0.0.1")
    assert (ways.hides, ways.leads_to(world), ways.leads_to(here)) == (True, True, False)
    await ways.close(None)
    assert (ways.hides, ways.leads_to(world)) == (False, False)
    await ways.close(Prefs(exit_node_id="n3"))
    assert (ways.hides, ways.leads_to(world)) == (True, True)
