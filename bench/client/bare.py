"""WireGuard by itself, as the client sets it up, with no daemon beside it: ``python -m bench.client.bare``.

Arguments: own private key, peer's public key (hex), own address, peer's address, own port, peer's HOST:PORT.
It runs in the namespace that gets the interface and ends; the tunnel stays.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys

from client.engine import choose_engine
from client.net.router import Layout, Router
from client.wireguard import PeerConfig
from wire.keys import NodePrivate, NodePublic

INTERFACE = "bare0"


async def set_up(private: str, public: str, own: str, other: str, port: str, endpoint: str) -> None:
    engine = choose_engine(INTERFACE)
    await engine.start()
    await engine.set_key(NodePrivate(bytes.fromhex(private)), listen_port=int(port), fwmark=0)
    host, _, number = endpoint.rpartition(":")
    peer = PeerConfig(
        key=NodePublic(bytes.fromhex(public)), allowed_ips=(f"{other}/32",), endpoint=(host, int(number))
    )
    await engine.set_peers([peer])
    networks = [frozenset({ipaddress.ip_network(f"{address}/32")}) for address in (own, other)]
    await Router(INTERFACE).apply(Layout(*networks))
    await engine.status()  # wireguard-go opens its sockets when it comes up; this enlarges their buffers


if __name__ == "__main__":
    asyncio.run(set_up(*sys.argv[1:]))
