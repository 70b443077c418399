"""The port mapper against routers on loopback: it finds a way, renews, follows a change, and gives back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from client.net.portmap.mapper import MAX_RENEWAL, MIN_RENEWAL, RETRY_SECONDS, PortMapper
from client.net.portmap.ways import Address, Granted, NatPmp, Pcp, Upnp
from tests.client.net.portmap.routers import PUBLIC, Router

PORT = 41641
LOOPBACK = "127.0.0.1"


class FakeUpnp:
    """A third way that is there or not."""

    name = "UPnP"

    def __init__(self, granted: Granted | None = None) -> None:
        self.granted = granted
        self.unmapped = 0

    async def is_offered(self, gateway: str) -> bool:
        return self.granted is not None

    async def map(self, gateway: str, wanted_port: int, lifetime: int) -> Granted | None:
        return self.granted

    async def unmap(self, gateway: str) -> None:
        self.unmapped += 1


class Setting:
    """A mapper, its router, and what it told."""

    def __init__(self, router: Router, upnp: FakeUpnp) -> None:
        self.router = router
        self.upnp = upnp
        self.gateway: str | None = LOOPBACK
        self.told: list[Address | None] = []
        ways = (
            Pcp(port=PORT, mark=0, nonce=b"n" * 12, router_port=router.port),
            NatPmp(port=PORT, mark=0, router_port=router.port),
            upnp,
        )
        self.mapper = PortMapper(ways, on_change=self._changed, gateway=self._gateway)

    def _changed(self) -> None:
        self.told.append(self.mapper.external)

    async def _gateway(self) -> str | None:
        return self.gateway


Make = Callable[..., "asyncio.Future[Setting]"]


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., object]]:
    routers: list[Router] = []

    async def one(*speaks: str, upnp: FakeUpnp | None = None, lifetime: int = 3600) -> Setting:
        routers.append(await Router(set(speaks), lifetime).start())
        return Setting(routers[-1], upnp or FakeUpnp())

    yield one
    for router in routers:
        router.close()


@pytest.mark.parametrize("speaks", [("PCP", "NAT-PMP"), ("NAT-PMP",), ("PCP",)])
async def test_a_mapping_is_got_renewed_and_given_back(make: Make, speaks: tuple[str, ...]) -> None:
    setting = await make(*speaks)
    assert await setting.mapper.step() == MAX_RENEWAL
    assert setting.mapper.external == (PUBLIC, PORT)
    assert setting.mapper.offers.pcp is ("PCP" in speaks)
    await setting.mapper.step()
    assert setting.router.asked == ["map", "map"]
    assert setting.told == [(PUBLIC, PORT)]
    await setting.mapper.release()
    assert setting.router.mappings == {}
    assert setting.mapper.external is None


async def test_a_short_lease_is_renewed_at_half_of_it_but_not_all_the_time(make: Make) -> None:
    assert await (await make("PCP", lifetime=200)).mapper.step() == 100
    assert await (await make("PCP", lifetime=2)).mapper.step() == MIN_RENEWAL


async def test_upnp_is_the_last_resort(make: Make) -> None:
    upnp = FakeUpnp(Granted((PUBLIC, 7), 3600))
    setting = await make("NAT-PMP", upnp=upnp)
    await setting.mapper.step()
    assert setting.mapper.external == (PUBLIC, PORT)
    setting = await make(upnp=upnp)
    await setting.mapper.step()
    assert setting.mapper.external == (PUBLIC, 7)
    assert setting.mapper.offers.upnp
    await setting.mapper.release()
    assert upnp.unmapped == 1


async def test_without_a_router_that_helps_it_asks_less_and_less_often(make: Make) -> None:
    setting = await make()
    setting.router.close()  # nobody listens: the port is unreachable at once
    pauses = [await setting.mapper.step() for _ in range(4)]
    assert pauses == [*RETRY_SECONDS, RETRY_SECONDS[-1]]
    assert setting.told == []
    setting.mapper.refresh()
    assert await setting.mapper.step() == RETRY_SECONDS[0]


async def test_a_missed_renewal_does_not_end_a_mapping_before_its_time(make: Make) -> None:
    setting = await make("NAT-PMP")
    await setting.mapper.step()
    setting.router.deaf = True
    assert await setting.mapper.step() == RETRY_SECONDS[0]
    assert setting.mapper.external == (PUBLIC, PORT)


async def test_behind_another_router_the_old_mapping_is_worth_nothing(make: Make) -> None:
    setting = await make("PCP")
    await setting.mapper.step()
    setting.gateway = None
    await setting.mapper.step()
    assert setting.told == [(PUBLIC, PORT), None]
    setting.gateway = LOOPBACK
    await setting.mapper.step()
    assert setting.mapper.external == (PUBLIC, PORT)


async def test_a_new_public_address_is_told(make: Make) -> None:
    setting = await make("NAT-PMP")
    await setting.mapper.step()
    setting.router.host = "203.0.113.10"
    await setting.mapper.step()
    assert setting.told == [(PUBLIC, PORT), ("203.0.113.10", PORT)]


async def test_a_router_without_a_public_address_maps_nothing(make: Make) -> None:
    for protocol in ("PCP", "NAT-PMP"):
        setting = await make(protocol)
        setting.router.host = "0.0.0.0"
        await setting.mapper.step()
        assert setting.mapper.external is None


async def test_all_protocols_are_looked_for_on_request(make: Make) -> None:
    setting = await make("PCP", "NAT-PMP", upnp=FakeUpnp(Granted((PUBLIC, 7), 3600)))
    offers = await setting.mapper.look_for_all()
    assert (offers.pcp, offers.pmp, offers.upnp) == (True, True, True)
    setting.gateway = None
    offers = await setting.mapper.look_for_all()
    assert (offers.pcp, offers.pmp, offers.upnp) == (False, False, False)
    setting = await make("NAT-PMP")
    assert (await setting.mapper.look_for_all()).pcp is False


async def test_it_runs_until_it_is_ended_and_looks_when_it_is_told_to(make: Make) -> None:
    setting = await make("PCP")
    running = asyncio.create_task(setting.mapper.run())
    async with asyncio.timeout(20):
        await setting.router.heard.wait()
        setting.router.heard.clear()
        setting.mapper.refresh()
        await setting.router.heard.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# --- UPnP through miniupnpc ------------------------------------------------------------------------------


class Igd:
    """miniupnpc's object for a router, in its words."""

    lanaddr = "192.168.1.5"

    def __init__(
        self, *, host: str = PUBLIC, taken: frozenset[int] = frozenset(), permanent: bool = False
    ) -> None:
        self.host = host
        self.taken = taken
        self.permanent = permanent
        self.mappings: dict[int, tuple[str, int, int]] = {}

    def externalipaddress(self) -> str:
        return self.host

    def addportmapping(
        self, port: int, _: str, host: str, inner: int, _name: str, _remote: str, lease: int
    ) -> bool:
        if port in self.taken:
            raise Exception("ConflictInMappingEntry")
        if self.permanent and lease:
            raise Exception("OnlyPermanentLeasesSupported")
        self.mappings[port] = (host, inner, lease)
        return True

    def deleteportmapping(self, port: int, _: str) -> bool:
        del self.mappings[port]
        return True


def upnp_of(igd: Igd | None) -> Upnp:
    way = Upnp(port=PORT)

    def find() -> Igd:
        if igd is None:
            raise Exception("No UPnP device discovered")
        return igd

    way._find = find  # type: ignore[method-assign]
    return way


async def test_upnp_maps_and_gives_back() -> None:
    igd = Igd()
    way = upnp_of(igd)
    assert await way.is_offered(LOOPBACK)
    assert await way.map(LOOPBACK, 0, 7200) == Granted((PUBLIC, PORT), 7200)
    assert igd.mappings == {PORT: (Igd.lanaddr, PORT, 7200)}
    await way.unmap(LOOPBACK)
    assert igd.mappings == {}


async def test_upnp_takes_another_port_and_a_lease_without_end_where_it_must() -> None:
    igd = Igd(taken=frozenset({PORT}), permanent=True)
    granted = await upnp_of(igd).map(LOOPBACK, 0, 7200)
    assert granted is not None
    assert granted.external[1] != PORT
    assert igd.mappings[granted.external[1]][2] == 0


@pytest.mark.parametrize("igd", [None, Igd(host=""), Igd(host="0.0.0.0")])
async def test_upnp_without_a_router_that_helps(igd: Igd | None) -> None:
    assert await upnp_of(igd).map(LOOPBACK, 0, 7200) is None
