"""Measures the network: STUN from WireGuard's own port, and, where UDP is blocked, relays' latency over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable

from client.magicsock.netcheck import Address, Measurement, Report, nodes_to_measure
from client.net.marks import mark_socket
from wire import stun
from wire.derpmap import NO_ADDRESS, DERPMap, DERPNode
from wire.errors import FrameError

log = logging.getLogger(__name__)

STUN_SECONDS = 3.0
STUN_GAPS = (0.2, 0.5, 1.0, 1.3)  # a server that is silent is asked again after each but the last
LATE_SECONDS = 1.0  # once one server answered, the others get so long
RESOLVE_SECONDS = 2.0
TLS_SECONDS = 3.0
MAX_TLS_REGIONS = 8
MAX_HEAD_BYTES = 8 * 1024

Resolve = Callable[[str, socket.AddressFamily], Awaitable[str]]


async def resolve_host(host: str, family: socket.AddressFamily) -> str:
    """The first address of a name; raises :class:`OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, family=family, type=socket.SOCK_DGRAM)
    return str(found[0][4][0])


class Prober:
    """``send(packet, to)`` leaves from WireGuard's port; what comes back is given to :meth:`receive`."""

    def __init__(
        self,
        *,
        send: Callable[[bytes, Address], bool],
        entropy: Callable[[int], bytes],
        mark: int,
        resolve: Resolve = resolve_host,
    ) -> None:
        self._send = send
        self._entropy = entropy
        self._mark = mark
        self._resolve = resolve
        self._remembered: dict[tuple[str, int], str] = {}  # for when DNS is down
        self._running: Measurement | None = None
        self._limit: asyncio.Timeout | None = None
        self._answers: dict[Address, asyncio.Event] = {}

    async def measure(
        self, derp_map: DERPMap, last: Report | None, *, home: int, full: bool, os_has_ipv6: bool
    ) -> Measurement:
        """One netcheck, bounded in time. Only one may run at once."""
        nodes = nodes_to_measure(derp_map, last, home=home, full=full)
        self._running = measurement = Measurement(os_has_ipv6=os_has_ipv6)
        try:
            await self._ask_all(nodes, measurement)
        finally:
            self._running, self._limit = None, None
            self._answers.clear()
        if not measurement.any_answer:
            await self._measure_by_tls(nodes, last, measurement, full=full)
        return measurement

    def receive(self, packet: bytes) -> None:
        """A STUN packet came to WireGuard's port; others than answers to us are ignored."""
        if self._running is None:
            return
        with contextlib.suppress(FrameError):
            answer = stun.parse_response(packet)
            now = asyncio.get_running_loop().time()
            first = not self._running.any_answer
            if not self._running.answered(answer.txid, answer.address, now):
                return
            if first and self._limit is not None:
                self._limit.reschedule(min(self._limit.when() or now, now + LATE_SECONDS))
            for server, event in self._answers.items():
                if not self._running.is_silent(server):
                    event.set()

    # --- STUN --------------------------------------------------------------------------------------------

    async def _ask_all(self, nodes: Iterable[DERPNode], measurement: Measurement) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STUN_SECONDS) as self._limit, asyncio.TaskGroup() as group:
                for node in nodes:
                    for family in (socket.AF_INET, socket.AF_INET6):
                        group.create_task(self._ask(node, family, measurement))

    async def _ask(self, node: DERPNode, family: socket.AddressFamily, measurement: Measurement) -> None:
        port = node.effective_stun_port
        host = await self._host(node, family, measurement) if port else None
        if host is None or port is None:
            return
        server = (host, port)
        answered = self._answers.setdefault(server, asyncio.Event())
        for gap in STUN_GAPS:
            txid = self._entropy(stun.TXID_BYTES)
            measurement.sent(txid, node.region_id, server, asyncio.get_running_loop().time())
            self._send(stun.binding_request(txid), server)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(gap):
                    await answered.wait()
                return

    async def _host(
        self, node: DERPNode, family: socket.AddressFamily, measurement: Measurement
    ) -> str | None:
        """The node's address of a family: from the map, else by DNS, else what DNS said before."""
        version = 4 if family is socket.AF_INET else 6
        if version == 6 and not measurement.os_has_ipv6:
            return None
        given = node.ipv4 if version == 4 else node.ipv6
        with contextlib.suppress(ValueError):
            ip = ipaddress.ip_address(given or node.host_name)
            return str(ip) if ip.version == version else None
        return None if given == NO_ADDRESS else await self._look_up(node.host_name, family)

    async def _look_up(self, name: str, family: socket.AddressFamily) -> str | None:
        key = (name, int(family))
        with contextlib.suppress(OSError, UnicodeError, TimeoutError):
            async with asyncio.timeout(RESOLVE_SECONDS):
                self._remembered[key] = await self._resolve(name, family)
        return self._remembered.get(key)

    # --- TLS ---------------------------------------------------------------------------------------------

    async def _measure_by_tls(
        self, nodes: Iterable[DERPNode], last: Report | None, measurement: Measurement, *, full: bool
    ) -> None:
        """UDP is blocked. Latencies of a full netcheck are good until the next one."""
        if not full and last is not None and not last.udp and last.region_latency:
            for region, latency in last.region_latency.items():
                measurement.measured(region, latency)
            return
        first = {node.region_id: node for node in reversed(list(nodes)) if not node.stun_only}
        async with asyncio.TaskGroup() as group:
            for node in list(first.values())[:MAX_TLS_REGIONS]:
                group.create_task(self._measure_node(node, measurement))

    async def _measure_node(self, node: DERPNode, measurement: Measurement) -> None:
        try:
            async with asyncio.timeout(TLS_SECONDS):
                measurement.measured(node.region_id, await self._tls_latency(node, measurement))
        except (OSError, TimeoutError, EOFError, ValueError) as error:
            log.debug("relay %s cannot be measured over TLS: %s", node.name, error)

    async def _tls_latency(self, node: DERPNode, measurement: Measurement) -> float:
        """The second of two requests on one connection: the first one pays for setting it up."""
        reader, writer = await self._connect(node, measurement)
        try:
            request = f"HEAD /derp/latency-check HTTP/1.1\r\nHost: {node.host_name}\r\n\r\n".encode()
            latency = 0.0
            for _ in range(2):
                start = asyncio.get_running_loop().time()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                latency = asyncio.get_running_loop().time() - start
                if head.split(b" ", 2)[1:2] != [b"200"]:
                    raise ValueError(f"unexpected answer {head[:40]!r}")
            return latency
        finally:
            writer.transport.abort()

    async def _connect(
        self, node: DERPNode, measurement: Measurement
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for family in (socket.AF_INET, socket.AF_INET6):
            if host := await self._host(node, family, measurement):
                break
        else:
            raise OSError(f"{node.host_name} has no address")
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            mark_socket(sock, self._mark)
            await asyncio.get_running_loop().sock_connect(sock, (host, node.effective_derp_port))
            reader, writer = await asyncio.open_connection(
                sock=sock,
                ssl=_tls_context(node),
                server_hostname=node.cert_name if _has_other_name(node) else node.host_name,
                limit=MAX_HEAD_BYTES,
            )
        except BaseException:
            sock.close()
            raise
        _check_pin(node, writer)
        return reader, writer


def _has_other_name(node: DERPNode) -> bool:
    return bool(node.cert_name) and node.pinned_sha256 is None


def _tls_context(node: DERPNode) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if node.pinned_sha256 is not None or node.insecure_for_tests:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _check_pin(node: DERPNode, writer: asyncio.StreamWriter) -> None:
    """A relay that is pinned in the map must show exactly that certificate."""
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
    if node.pinned_sha256 is not None and hashlib.sha256(shown).hexdigest() != node.pinned_sha256:
        writer.transport.abort()
        raise OSError(f"relay {node.name} shows another certificate than the map says")
