"""Captive portals: real sockets on loopback, a server that answers as relays do and one that does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from client.magicsock.captive import Check, behind_portal, checks
from client.magicsock.dial import Resolver
from wire.derpmap import DERPMap, DERPNode, DERPRegion

HOST = "127.0.0.1"
PORTAL = b"HTTP/1.1 302 Found\r\nLocation: http://portal.hotel.example/login\r\n\r\n"
OWN_REDIRECT = b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://127.0.0.1/generate_204\r\n\r\n"
PLAIN_204 = b"HTTP/1.1 204 No Content\r\n\r\n"
OURS = b"HTTP/1.1 204 No Content\r\nX-Tailscale-Response: response ts_127.0.0.1\r\n\r\n"


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[Check]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        assert asked.startswith(b"GET /generate_204 ")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield Check(node(server.sockets[0].getsockname()[1]))


def node(port: int) -> DERPNode:
    return DERPNode(name="x", region_id=1, host_name=HOST, ipv4=HOST, derp_port=port)


@pytest.mark.parametrize(
    ("answer", "portal"),
    [
        (OURS, False),
        (OWN_REDIRECT, False),
        (PORTAL, True),
        (PLAIN_204, True),
        (b"HTTP/1.1 200 OK\r\n\r\nsign in", True),
        (b"SSH-2.0-hello\r\n\r\n", True),
        (b"", None),
    ],
)
async def test_answers(answer: bytes, portal: bool | None) -> None:
    async with answering(answer) as check:
        assert await behind_portal([check], resolver=Resolver(), mark=0) is portal


async def test_one_portal_among_many_is_enough_and_nobody_is_not_known() -> None:
    async with answering(OURS) as good, answering(PORTAL) as bad:
        assert await behind_portal([good, bad], resolver=Resolver(), mark=0) is True
    assert await behind_portal([Check(node(9))], resolver=Resolver(), mark=0) is None
    assert await behind_portal([], resolver=Resolver(), mark=0) is None


def test_who_is_asked() -> None:
    def region(number: int, **options: object) -> DERPRegion:
        made = DERPNode(name=f"{number}a", region_id=number, host_name="r.example", **options)  # type: ignore[arg-type]
        return DERPRegion(region_id=number, region_code="", region_name="", nodes=(made,))

    regions = (
        region(1, ipv4="192.0.2.1", can_port80=True),
        region(2, ipv4="192.0.2.2", can_port80=True),
        region(3, ipv4="192.0.2.3"),
        region(4, ipv4="none", can_port80=True),
    )
    derp_map = DERPMap(regions={item.region_id: item for item in regions})
    found = checks(derp_map, home=2, control_url="http://vpn.example:8080/")
    assert [check.host for check in found] == ["192.0.2.2", "192.0.2.1", "vpn.example:8080"]
    assert [check.host for check in checks(DERPMap(), home=0, control_url="https://vpn.example")] == [
        "vpn.example"
    ]
    assert checks(DERPMap(), home=0, control_url="") == []
    assert checks(DERPMap(), home=0, control_url="http://[bad") == []
    assert checks(DERPMap(), home=0, control_url="http://a%0d%0ab/") == []
