"""The addresses of DNS on the tunnel's interface."""

from __future__ import annotations

import subprocess

import pytest

from client.dns.resolver import Resolver
from client.dns.server import DnsServer
from client.errors import SetupError
from client.net.serviceaddresses import SERVICE_ADDRESSES, put_service_addresses
from tests.client.net.namespace import in_namespace


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.root
class TestInTheKernel:
    async def test_they_can_be_listened_on_at_once(self) -> None:
        with in_namespace():
            ip("link", "add", "tz", "up", "type", "bridge")
            server = DnsServer(Resolver())
            await server.start(await put_service_addresses("tz"))
            assert server.is_serving
            await server.close()

    async def test_they_are_put_once_and_are_no_source_of_packets(self) -> None:
        with in_namespace():
            ip("link", "add", "tz", "up", "type", "bridge")
            for _ in range(2):
                assert await put_service_addresses("tz") == SERVICE_ADDRESSES
            assert ip("-4", "addr", "show", "tz").count("100.100.100.100/32 scope host") == 1
            assert ip("-6", "addr", "show", "tz", "deprecated").count("fd7a:115c:a1e0::53/128") == 1

    async def test_an_interface_that_is_gone_is_one_line(self) -> None:
        with in_namespace(), pytest.raises(SetupError, match="tz is gone"):
            await put_service_addresses("tz")
