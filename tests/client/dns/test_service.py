"""The whole of DNS on a host of the memory: what is installed when, what is repaired, what is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from client.dns import service
from client.dns.resolver import Resolver
from client.dns.server import DnsServer
from client.dns.service import Dns, Wanted, wanted_dns
from client.errors import ClientError, SetupError
from client.net.hostdns import HostConfig, HostDns
from client.prefs import Prefs
from tests.client.fakes import netmap, node
from wire.netmap import DNSConfig, NetMap
from wire.netmap import Resolver as Nameserver

MAGIC = DNSConfig(routes={"tail.example": ()}, domains=("tail.example",), proxied=True)
PROVIDER = "192.168.1.1"


class FakeHost(HostDns):
    """Remembers what is installed; ``rewritten`` as if by somebody else."""

    def __init__(self) -> None:
        super().__init__("trenza0", Path("/nonexistent"), path=Path("/nonexistent/resolv.conf"))
        self.config: HostConfig | None = None
        self.installs = self.removals = 0
        self.failure: SetupError | None = None

    @property
    def manager(self) -> str:
        return "resolv.conf" if self.config is not None else ""

    async def install(self, config: HostConfig) -> None:
        if self.failure is not None:
            raise self.failure
        self.config, self.installs = config, self.installs + 1

    async def is_installed(self) -> bool:
        return self.config is not None

    async def remove(self) -> None:
        self.config, self.removals = None, self.removals + 1

    def base(self) -> tuple[str, ...]:
        return (PROVIDER, "fe80::1%eth0", "100.100.100.100", "nonsense")


class FakeServer(DnsServer):
    failure: SetupError | None = None
    serving = False

    @property
    def is_serving(self) -> bool:
        return self.serving

    async def start(self, addresses: Iterable[str]) -> None:
        if self.failure is not None:
            raise self.failure
        self.serving = True

    async def close(self) -> None:
        self.serving = False


class Place:
    def __init__(self) -> None:
        self.host = FakeHost()
        self.told = 0
        self.dns = Dns(interface="trenza0", host=self.host, on_trouble=self.tell, check_seconds=0.01)
        self.server = FakeServer(self.dns.resolver)
        self.dns._server = self.server

    def tell(self) -> None:
        self.told += 1

    async def checked(self) -> None:
        """Wait until it has looked at everything a few times."""
        await asyncio.sleep(0.1)


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    async def put(interface: str) -> tuple[str, ...]:
        return ("100.100.100.100",)

    monkeypatch.setattr(service, "put_service_addresses", put)
    made = Place()
    yield made
    await made.dns.stop()


def wanted(map_: NetMap | None = None, **prefs: bool) -> Wanted:
    return wanted_dns(
        map_ or netmap(node(2), dns_config=MAGIC), Prefs(**prefs), "https://vpn.example.com:8443"
    )


async def test_names_are_led_here_and_back(place: Place) -> None:
    await place.dns.follow(wanted())
    assert place.host.config is not None
    assert place.host.config.search == ("tail.example",)
    assert not place.host.config.everything
    assert [str(one) for one in place.dns.resolver.config.base] == [PROVIDER, "[fe80::1]:53"]
    assert place.dns.status()["Manager"] == "resolv.conf"
    await place.dns.follow(wanted(netmap(node(2), dns_config=DNSConfig())))
    assert place.host.config is None
    await place.dns.follow(wanted())
    await place.dns.stop()
    assert place.host.config is None
    assert not place.server.serving


async def test_who_does_not_accept_still_has_a_resolver(place: Place) -> None:
    await place.dns.follow(wanted(accept_dns=False))
    assert place.host.config is None
    assert place.server.serving
    found = await place.dns.query("node2.tail.example", "A")
    assert [one["Body"] for one in found["Answers"]] == ["100.64.0.2"]
    assert found["AnsweredBy"] == "here"
    with pytest.raises(ClientError, match="no such question"):
        await place.dns.query("a..b", "A")


async def test_nameservers_of_the_tailnet_take_everything(place: Place) -> None:
    dns = DNSConfig(proxied=True, resolvers=(Nameserver(address="9.9.9.9"),))
    await place.dns.follow(wanted(netmap(node(2), dns_config=dns)))
    assert place.host.config is not None
    assert place.host.config.everything


async def test_what_others_change_is_repaired_a_few_times_and_then_left(place: Place) -> None:
    await place.dns.follow(wanted())
    for number in range(service.MAX_REPAIRS):
        place.host.config = None
        await place.checked()
        assert place.host.installs == number + 2
    place.host.config = None
    await place.checked()
    assert place.host.installs == service.MAX_REPAIRS + 1
    assert "another program keeps changing" in place.dns.trouble
    told = place.told
    await place.checked()
    assert place.told == told  # said once
    place.dns._repairs.clear()  # they have rested
    await place.checked()
    assert place.host.config is not None
    assert place.dns.trouble == ""


async def test_what_fails_is_said_and_tried_again(place: Place) -> None:
    place.server.failure = SetupError("port 53 is taken")
    await place.dns.follow(wanted())
    assert place.dns.trouble == "DNS: port 53 is taken"
    assert place.host.config is None  # nobody is led to where nobody answers
    place.server.failure, place.host.failure = None, SetupError("it is read-only")
    await place.checked()
    assert place.dns.trouble == "DNS: it is read-only"
    place.host.failure = None
    await place.checked()
    assert place.dns.trouble == ""
    assert place.host.config is not None


async def test_a_slow_host_does_not_hold_up_the_tunnel(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "FOLLOW_SECONDS", 0.01)
    install = place.host.install

    async def slow(config: HostConfig) -> None:
        await asyncio.sleep(0.05)
        await install(config)

    monkeypatch.setattr(place.host, "install", slow)
    await place.dns.follow(wanted())
    assert "takes long" in place.dns.trouble
    await asyncio.sleep(0.3)
    assert place.host.config is not None
    assert place.dns.trouble == ""


async def test_a_killed_daemons_traces_are_removed_once(place: Place) -> None:
    await place.dns.follow(wanted(accept_dns=False))
    await place.checked()
    assert place.host.removals == 1


async def test_no_connection_goes_on_beside_an_exit_node() -> None:
    class Counting(Resolver):
        closed = 0

        async def close(self) -> None:
            self.closed += 1
            await super().close()

    resolver = Counting()
    dns = Dns(interface="trenza0", host=FakeHost(), touch_host=False, resolver=resolver)
    made = netmap(node(2), node(3), dns_config=MAGIC)
    for prefs, closed in ((Prefs(), 0), (Prefs(exit_node_id="n3"), 1), (Prefs(exit_node_id="n2"), 1)):
        await dns.follow(wanted_dns(made, prefs, ""))
        assert resolver.closed == closed
    await dns.follow(wanted_dns(made, Prefs(), ""))
    assert resolver.closed == 2
    await dns.stop()


async def test_without_a_host_only_the_resolver_follows() -> None:
    host = FakeHost()
    dns = Dns(interface="trenza0", host=host, touch_host=False)
    await dns.follow(wanted())
    assert host.config is None
    assert (await dns.query("node2.tail.example", "A"))["ResponseCode"] == "NOERROR"
    with pytest.raises(ClientError, match="malformed"):
        await dns.answer_peer(b"x")
    await dns.stop()
    assert host.removals == 0


def test_what_is_wanted_follows_the_preferences() -> None:
    made = netmap(node(2), node(3), dns_config=MAGIC)
    by_id, by_ip = (
        wanted_dns(made, prefs, "https://vpn.example.com")
        for prefs in (Prefs(exit_node_id="n3"), Prefs(exit_node_ip="100.64.0.2"))
    )
    assert (by_id.hidden, by_id.exit_node) == (True, made.peers[3])
    assert by_ip.exit_node == made.peers[2]
    gone = wanted_dns(made, Prefs(exit_node_id="n9"), "")
    assert (gone.hidden, gone.exit_node) == (True, None)
    assert by_id.control_host == "vpn.example.com"
    assert not by_id.same_config(by_ip)
    assert by_id.same_config(
        wanted_dns(
            netmap(*made.peers.values(), dns_config=MAGIC),
            Prefs(exit_node_id="n3"),
            "https://vpn.example.com",
        )
    )
