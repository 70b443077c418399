"""One node's data plane in a process of its own: engine, raw port, shuttle, relays; no control, no paths.

``python -m tests.client.magicsock.host CONFIG`` (JSON) obeys JSON lines on stdin and answers each with one.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

from client.engine import choose_engine
from client.errors import ClientError
from client.magicsock.derp import DerpPool
from client.magicsock.rawport import RawPort
from client.magicsock.shuttle import Shuttle
from client.net.marks import MARK
from client.wireguard import PeerConfig
from wire import stun
from wire.derpmap import DERPMap
from wire.keys import NodePrivate, NodePublic

STUN_SECONDS = 5.0
RELAY_SECONDS = 15.0


class Host:
    """``config``: interface, port, key, addresses, peer, peer_addresses, derp_map and region (or null)."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.region: int = config["region"] or 0
        self.peer = NodePublic(bytes.fromhex(config["peer"]))
        self.key = NodePrivate(bytes.fromhex(config["key"]))
        self.engine = choose_engine(config["interface"])
        self.shuttle = Shuttle(wireguard_port=config["port"], mark=MARK, on_outgoing=self._outgoing)
        self.raw = RawPort(config["port"], mark=MARK, on_packet=self._heard)
        self.pool = DerpPool(
            node_key=self.key,
            mark=MARK,
            on_packets=self._relayed,
            on_gone=lambda *_: None,
            on_change=lambda *_: self.relay_changed.set(),
        )
        self.relay_changed = asyncio.Event()
        self.answers: asyncio.Queue[stun.BindingResponse] = asyncio.Queue()
        self.relayed = 0

    def _outgoing(self, peer: NodePublic, packets: list[bytes]) -> None:
        self.pool.send(self.region, peer, packets)

    def _relayed(self, region: int, peer: NodePublic, packets: list[bytes]) -> None:
        self.relayed += len(packets)
        self.shuttle.inject(peer, packets)

    def _heard(self, packet: bytes, source: tuple[str, int]) -> None:
        if stun.is_stun(packet):
            self.answers.put_nowait(stun.parse_response(packet))

    async def start(self) -> dict[str, Any]:
        taken_over = await self.engine.start()
        await self.engine.set_key(self.key, listen_port=self.config["port"], fwmark=MARK)
        lane = self.shuttle.add(self.peer)
        prefixes = tuple(self.config["peer_addresses"])
        await self.engine.set_peers([PeerConfig(key=self.peer, allowed_ips=prefixes, endpoint=lane)])
        if not taken_over:
            self._bring_up()
        self.raw.start()
        if self.region:
            await self._reach_relay()
        return {"taken_over": taken_over, "engine": self.engine.name}

    def _bring_up(self) -> None:
        name = self.config["interface"]
        lines = [f"addr add {address} dev {name} nodad" for address in self.config["addresses"]]
        lines.append(f"link set {name} up")
        lines += [f"route add {prefix} dev {name}" for prefix in self.config["peer_addresses"]]
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)

    async def _reach_relay(self) -> None:
        self.pool.set_map(DERPMap.from_json(self.config["derp_map"]))
        self.pool.set_home(self.region)
        async with asyncio.timeout(RELAY_SECONDS):
            while not self.pool.answers(self.region):
                self.relay_changed.clear()
                await self.relay_changed.wait()

    # --- commands ----------------------------------------------------------------------------------------

    async def direct(self, host: str, port: int) -> None:
        self.shuttle.set_direct(self.peer, (host, port))
        await self.engine.set_endpoint(self.peer, (host, port))

    async def direct_naively(self, host: str, port: int) -> None:
        await self.engine.set_endpoint(self.peer, (host, port))

    async def relay(self) -> None:
        self.shuttle.set_direct(self.peer, None)
        await self.engine.set_endpoint(self.peer, self.shuttle.address_of(self.peer))

    async def status(self) -> dict[str, Any]:
        status = await self.engine.status()
        peer = status.peers[self.peer]
        return {
            "endpoint": peer.endpoint,
            "lane": self.shuttle.address_of(self.peer),
            "rx": peer.rx_bytes,
            "handshake": peer.last_handshake,
            "relayed": self.relayed,
        }

    async def stun(self, host: str, port: int) -> tuple[str, int]:
        self.raw.send(stun.binding_request(os.urandom(stun.TXID_BYTES)), (host, port))
        async with asyncio.timeout(STUN_SECONDS):
            return (await self.answers.get()).address

    async def close(self, keep: bool) -> None:
        self.raw.close()
        self.shuttle.close()
        await self.pool.close()
        await self.engine.close(keep=keep)


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        host = Host(json.loads(sys.argv[1]))
        answer(await host.start())
    except ClientError as error:
        answer({"error": str(error), "code": error.code})
        return
    while line := await reader.readline():
        name, *arguments = json.loads(line)
        try:
            answer(await getattr(host, name)(*arguments))
        except (ClientError, TimeoutError) as error:
            answer({"error": str(error) or type(error).__name__})
        if name == "close":
            return


def answer(content: Any) -> None:
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
