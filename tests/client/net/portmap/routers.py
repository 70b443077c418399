"""Routers' port mappers on loopback: as in RFC 6886 and RFC 6887, and by UPnP; they can be told to fail."""

from __future__ import annotations

import asyncio
import ipaddress
import re
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


SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
DESCRIPTION = f"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>
<controlURL>/other</controlURL></service></serviceList>
<deviceList><device><serviceList>
<service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType>
<controlURL>/ppp</controlURL></service>
<service >
<serviceType> {SERVICE} </serviceType><controlURL>control?a=1&amp;b=2</controlURL></service>
</serviceList></device></deviceList></device></root>"""


@dataclass
class UpnpRouter(asyncio.DatagramProtocol):
    """``mappings``: external port → internal host, port, lease. ``location``: of its description."""

    host: str = PUBLIC
    taken: frozenset[int] = frozenset()
    permanent: bool = False
    with_length: bool = True
    description: str = DESCRIPTION
    location: str = "http://192.168.1.1:{port}/folder/root.xml"
    mappings: dict[int, tuple[str, int, int]] = field(default_factory=dict)

    async def start(self) -> UpnpRouter:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        self.search_port = int(self.transport.get_extra_info("sockname")[1])
        await self.serve()
        return self

    async def serve(self) -> None:
        """On another port than before."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self.server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self.transport.close()
        self.server.close()
        await asyncio.sleep(0)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data.startswith(b"M-SEARCH * HTTP/1.1\r\n"):
            lines = ["HTTP/1.1 200 OK", "EXT:", f"LOCATION: {self.location.format(port=self.port)}"]
            self.transport.sendto("\r\n".join([*lines, "", ""]).encode(), addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = re.search(r"Content-Length: (\d+)", head)
        body = (await reader.readexactly(int(size[1])) if size else b"").decode()
        status, text = self._answer(head.split(" ")[1], head, body)
        length = f"Content-Length: {len(text)}\r\n" if self.with_length else ""
        writer.write(f"HTTP/1.1 {status}\r\nServer: x\r\n{length}\r\n{text}".encode())
        await writer.drain()
        writer.close()

    def _answer(self, path: str, head: str, body: str) -> tuple[str, str]:
        if path == "/folder/root.xml":
            return "200 OK", self.description
        action = re.search(r'SOAPAction: "urn:schemas-upnp-org:service:\w+:1#(\w+)"', head)
        if action is None or path not in ("/folder/control?a=1&b=2", "/ppp"):
            return "404 Not Found", ""
        if path == "/ppp":
            return "200 OK", "<NewExternalIPAddress>0.0.0.0</NewExternalIPAddress>"
        return self._do(action[1], dict(re.findall(r"<(New\w+)>([^<]*)</", body)))

    def _do(self, action: str, given: dict[str, str]) -> tuple[str, str]:
        if action == "GetExternalIPAddress":
            return "200 OK", f"<u:x><NewExternalIPAddress>{self.host}</NewExternalIPAddress></u:x>"
        port = int(given["NewExternalPort"])
        if action == "DeletePortMapping":
            self.mappings.pop(port, None)
            return "200 OK", ""
        lease = int(given["NewLeaseDuration"])
        code = 718 if port in self.taken else 725 if self.permanent and lease else 0
        if code:
            return "500 Internal Server Error", f"<UPnPError><errorCode>{code}</errorCode></UPnPError>"
        self.mappings[port] = (given["NewInternalClient"], int(given["NewInternalPort"]), lease)
        return "200 OK", ""
