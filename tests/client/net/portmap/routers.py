"""A router's port mapper on loopback: mappings as in RFC 6886 and RFC 6887; it can be told to fail."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from dataclasses import dataclass, field

from client.net.portmap import natpmp, pcp

PUBLIC = "203.0.113.9"


@dataclass
class Router(asyncio.DatagramProtocol):
    """``speaks``: protocol names. ``mappings``: internal port → external port. ``lifetime``: as granted."""

    speaks: set[str]
    lifetime: int = 3600
    host: str = PUBLIC
    mappings: dict[int, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    deaf: bool = False
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> Router:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        self.port = int(self.transport.get_extra_info("sockname")[1])
        return self

    def close(self) -> None:
        self.transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = None if self.deaf else self.answer(data)
        if answer is not None:
            self.transport.sendto(answer, addr)

    def answer(self, data: bytes) -> bytes | None:
        if data[0] == pcp.VERSION and "PCP" in self.speaks:
            return self._pcp(data)
        if data[0] == 0 and "NAT-PMP" in self.speaks:
            return self._natpmp(data)
        if data[0] and "NAT-PMP" in self.speaks:
            return struct.pack("!BBHI", 0, 128, natpmp.UNSUPPORTED_VERSION, 7)
        return None

    def _keep(self, internal: int, wanted: int, lifetime: int) -> tuple[int, int]:
        self.asked.append("unmap" if not lifetime else "map")
        self.heard.set()
        if not lifetime:
            self.mappings.pop(internal, None)
            return wanted, 0
        self.mappings[internal] = self.mappings.get(internal, wanted)
        return self.mappings[internal], self.lifetime

    def _natpmp(self, data: bytes) -> bytes:
        if data[1] == natpmp.OP_ADDRESS:
            return struct.pack("!BBHI4s", 0, 128, 0, 7, ipaddress.IPv4Address(self.host).packed)
        _, _, _, internal, wanted, lifetime = struct.unpack("!BBHHHI", data)
        external, granted = self._keep(internal, wanted, lifetime)
        return struct.pack("!BBHIHHI", 0, 129, 0, 7, internal, external, granted)

    def _pcp(self, data: bytes) -> bytes:
        opcode, lifetime = data[1], struct.unpack_from("!I", data, 4)[0]
        head = struct.Struct("!BBBBII12s")
        if opcode == pcp.OP_ANNOUNCE:
            return head.pack(2, 128, 0, 0, 0, 7, b"")
        nonce, protocol, _, internal, wanted = struct.unpack_from("!12sB3sHH", data, 24)
        external, granted = self._keep(internal, wanted, lifetime)
        raw = bytes(10) + b"\xff\xff" + ipaddress.IPv4Address(self.host).packed
        body = struct.pack("!12sB3sHH16s", nonce, protocol, b"", internal, external, raw)
        return head.pack(2, 129, 0, 0, granted, 7, b"") + body
