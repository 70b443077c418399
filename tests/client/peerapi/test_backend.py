"""The PeerAPI follows the node: where it listens, what the filter opens, what the server is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from client.peerapi.api import PeerAPI
from tests.client.cli.test_cli import Machine, joined
from tests.client.peerapi.tailnet import no_names

__all__ = ["joined"]

OWN = ["100.64.0.1", "fd7a:115c:a1e0::1"]


def offered(machine: Machine) -> list[str]:
    return [service.proto for service in machine.backend.hostinfo().services]


def doors(machine: Machine) -> list[str]:
    return sorted(str(address) for address, _ in machine.host.firewall.doors)


async def test_it_is_there_while_the_tunnel_is(joined: Machine, tmp_path: Path) -> None:
    async def listen(accept: Any, address: str, port: int, /) -> asyncio.Server:
        return await asyncio.start_server(accept, "127.0.0.1", 0)

    backend = joined.backend
    backend.peerapi = PeerAPI(backend.in_force, lambda: tmp_path, resolve=no_names, listen=listen)
    backend.report_changed.clear()
    await backend.settle()
    assert doors(joined) == OWN
    assert offered(joined) == ["peerapi4", "peerapi6"]
    assert backend.report_changed.is_set()
    await joined.says("set", "--shields-up")
    await backend.settle()
    assert (doors(joined), offered(joined)) == (OWN, ["peerapi4", "peerapi6"])
    await joined.says("down")
    await backend.settle()
    assert (doors(joined), offered(joined)) == ([], [])
    await joined.says("up")
    await backend.settle()
    assert doors(joined) == OWN


async def test_a_node_whose_addresses_cannot_be_listened_on_works_all_the_same(
    joined: Machine, tmp_path: Path
) -> None:
    async def listen(accept: Any, address: str, port: int, /) -> asyncio.Server:
        raise OSError("in use")

    joined.backend.peerapi = PeerAPI(
        joined.backend.in_force, lambda: tmp_path, resolve=no_names, listen=listen
    )
    await joined.backend.settle()
    assert str(joined.backend.state) == "Running"
    assert (doors(joined), offered(joined)) == ([], [])
