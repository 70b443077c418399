"""Is there a captive portal: a network that answers in the place of servers until somebody has signed in?

Relays and the control server answer ``GET /generate_204`` with 204 and, to a challenge, with a response that
no portal knows. Only plain HTTP is asked: a portal cannot answer in the place of TLS.
Source: tailscale net/captivedetection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from client.magicsock.dial import HEAD_END, MAX_HEAD_BYTES, RECEIVE_BYTES, Resolver, connect, is_plain
from client.magicsock.tls import RelayError
from wire.derpmap import DERPMap, DERPNode

log = logging.getLogger(__name__)

CHECK_SECONDS = 3.0  # a portal is near, and quick
MAX_CHECKS = 5
HTTP_PORT = 80
CHALLENGE_PREFIX = "ts_"
REDIRECTS = range(300, 400)


@dataclass(frozen=True, slots=True)
class Check:
    """Somebody who ought to answer; ``node`` says where."""

    node: DERPNode

    @property
    def host(self) -> str:
        name = f"[{self.node.host_name}]" if ":" in self.node.host_name else self.node.host_name
        port = self.node.effective_derp_port
        return name if port == HTTP_PORT else f"{name}:{port}"

    @property
    def challenge(self) -> str:
        return (CHALLENGE_PREFIX + self.node.host_name)[:64]

    def request(self) -> bytes:
        lines = [
            "GET /generate_204 HTTP/1.1",
            f"Host: {self.host}",
            "Connection: close",
            "Cache-Control: no-cache, no-store, must-revalidate, no-transform, max-age=0",
            f"X-Tailscale-Challenge: {self.challenge}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def is_portal(self, head: bytes) -> bool:
        """Whether this answer is somebody else's. A redirect to the host itself, by TLS say, is its own."""
        status, headers = _parse(head)
        if status in REDIRECTS:
            return (urlsplit(headers.get("location", "")).hostname or "") != self.node.host_name.lower()
        return status != 204 or headers.get("x-tailscale-response") != f"response {self.challenge}"


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    """Status (0 for what is no HTTP) and headers by lower-case name."""
    line, *lines = head.decode("latin-1").split("\r\n")
    words = line.split(" ", 2)
    status = int(words[1]) if len(words) > 1 and words[0].startswith("HTTP/") and words[1].isdecimal() else 0
    pairs = (line.partition(":") for line in lines)
    return status, {name.strip().lower(): value.strip() for name, _, value in pairs}


def checks(derp_map: DERPMap, *, home: int, control_url: str) -> list[Check]:
    """Whom to ask, the home's relays first; the control server answers at its own port, or at 80."""
    regions = sorted(derp_map.regions.values(), key=lambda region: region.region_id != home)
    found = [
        Check(node)
        for node in _on_port_80(region_nodes for region in regions for region_nodes in region.nodes)
    ]
    if control := _control_node(control_url):
        found.append(Check(control))
    return found[:MAX_CHECKS]


def _on_port_80(nodes: Iterator[DERPNode]) -> Iterator[DERPNode]:
    for node in nodes:
        if node.can_port80 and is_plain(node) and _is_v4(node.ipv4):
            yield DERPNode(
                name=node.name,
                region_id=node.region_id,
                host_name=node.ipv4,
                ipv4=node.ipv4,
                derp_port=HTTP_PORT,
            )


def _control_node(url: str) -> DERPNode | None:
    try:
        parts = urlsplit(url)
        port = (parts.port or HTTP_PORT) if parts.scheme == "http" else HTTP_PORT
        host = parts.hostname or ""
    except ValueError:
        return None
    node = DERPNode(name="control", region_id=0, host_name=host, derp_port=port)
    return node if host and is_plain(node) else None


def _is_v4(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 4
    except ValueError:
        return False


async def behind_portal(wanted: list[Check], *, resolver: Resolver, mark: int) -> bool | None:
    """Whether any answer was a portal's; ``None`` when nobody answered at all."""
    answers = await asyncio.gather(*(_ask(check, resolver, mark) for check in wanted))
    known = [answer for answer in answers if answer is not None]
    return any(known) if known else None


async def _ask(check: Check, resolver: Resolver, mark: int) -> bool | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            head = await _fetch_head(check, resolver, mark)
    except (OSError, RelayError, UnicodeError) as error:
        log.info("no captive portal check at %s: %s", check.host, error or "no answer in time")
        return None
    return check.is_portal(head)


async def _fetch_head(check: Check, resolver: Resolver, mark: int) -> bytes:
    loop, received = asyncio.get_running_loop(), b""
    sock = await connect(await resolver.addresses(check.node), mark)
    try:
        await loop.sock_sendall(sock, check.request())
        while HEAD_END not in received:
            data = await loop.sock_recv(sock, RECEIVE_BYTES)
            if not data or len(received) > MAX_HEAD_BYTES:
                raise RelayError("the answer has no end")
            received += data
    finally:
        sock.close()
    return received.partition(HEAD_END)[0]
