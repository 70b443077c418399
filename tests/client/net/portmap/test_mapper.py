"""The port mapper against routers on loopback: it finds a way, renews, follows a change, and gives back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from client.net.portmap.mapper import MAX_RENEWAL, MIN_RENEWAL, RETRY_SECONDS, PortMapper
from client.net.portmap.ways import Address, Granted, NatPmp, Pcp, Upnp
from tests.client.net.portmap.routers import DESCRIPTION, PUBLIC, Router, UpnpRouter

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


# --- UPnP ------------------------------------------------------------------------------------------------


@pytest.fixture
async def igd() -> AsyncIterator[UpnpRouter]:
    router = await UpnpRouter().start()
    yield router
    await router.close()


def upnp_of(router: UpnpRouter) -> Upnp:
    return Upnp(port=PORT, mark=0, search_port=router.search_port)


@pytest.mark.parametrize("with_length", [True, False])
async def test_upnp_maps_renews_and_gives_back(igd: UpnpRouter, with_length: bool) -> None:
    igd.with_length = with_length
    way = upnp_of(igd)
    assert await way.is_offered(LOOPBACK)
    for _ in range(2):
        assert await way.map(LOOPBACK, 0, 7200) == Granted((PUBLIC, PORT), 7200)
        assert igd.mappings == {PORT: (LOOPBACK, PORT, 7200)}
    await way.unmap(LOOPBACK)
    assert igd.mappings == {}


async def test_upnp_takes_another_port_and_a_lease_without_end_where_it_must(igd: UpnpRouter) -> None:
    igd.taken, igd.permanent = frozenset({PORT}), True
    granted = await upnp_of(igd).map(LOOPBACK, 0, 7200)
    assert granted is not None
    assert granted.external[1] != PORT
    assert igd.mappings[granted.external[1]][2] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": ""},
        {"host": "0.0.0.0"},
        {"taken": frozenset(range(65536))},
        {"description": "<html>"},
        {"description": DESCRIPTION.replace("control?a", "nowhere?a")},
        {"location": "https://192.168.1.1:{port}/folder/root.xml"},
        {"location": "http://192.168.1.1:1/folder/root.xml"},
        {"location": "http://["},
    ],
)
async def test_upnp_without_a_router_that_helps(igd: UpnpRouter, wrong: dict[str, Any]) -> None:
    for name, value in wrong.items():
        setattr(igd, name, value)
    assert await upnp_of(igd).map(LOOPBACK, 0, 7200) is None
    assert igd.mappings == {}


async def test_a_router_that_has_gone_is_looked_for_anew(igd: UpnpRouter) -> None:
    way = upnp_of(igd)
    assert await way.map(LOOPBACK, 0, 7200)
    igd.server.close()
    assert await way.map(LOOPBACK, PORT, 7200) is None
    await igd.serve()
    assert await way.map(LOOPBACK, PORT, 7200) == Granted((PUBLIC, PORT), 7200)
