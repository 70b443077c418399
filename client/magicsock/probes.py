"""Measures the network: STUN from WireGuard's own port and, where UDP is blocked, relays over TLS."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from client.magicsock.dial import Resolver, is_plain
from client.magicsock.latency import tls_latency
from client.magicsock.netcheck import Address, Measurement, Report, nodes_to_measure, second_port
from client.magicsock.tls import RelayError
from wire import stun
from wire.derpmap import DERPMap, DERPNode
from wire.errors import FrameError

log = logging.getLogger(__name__)

STUN_SECONDS = 3.0
STUN_GAPS = (0.2, 0.5, 1.0, 1.3)  # a server that is silent is asked again after each but the last
LATE_SECONDS = 0.5  # once one server answered, the others get so long
TLS_AFTER_SECONDS = 0.8  # so long nobody answered STUN: UDP may be blocked
TLS_SECONDS = 3.0
MAX_TLS_REGIONS = 8


class Prober:
    """``send(packet, to)`` leaves from WireGuard's port; what comes back is given to :meth:`receive`."""

    def __init__(
        self,
        *,
        send: Callable[[bytes, Address], bool],
        entropy: Callable[[int], bytes],
        mark: int,
    ) -> None:
        self._send = send
        self._entropy = entropy
        self._mark = mark
        self._resolver = Resolver()
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
            async with asyncio.TaskGroup() as group:
                otherwise = self._measure_otherwise(nodes, last, measurement, full=full)
                by_tls = group.create_task(otherwise)
                await self._ask_all(nodes, measurement)
                if measurement.any_answer:
                    by_tls.cancel()
        finally:
            self._running, self._limit = None, None
            self._answers.clear()
        return measurement

    async def _measure_otherwise(
        self, nodes: Iterable[DERPNode], last: Report | None, measurement: Measurement, *, full: bool
    ) -> None:
        """Without waiting for the end of a round that nobody answers: a new home may be wanted soon."""
        await asyncio.sleep(TLS_AFTER_SECONDS)
        if not measurement.any_answer:
            await self._measure_by_tls(nodes, last, measurement, full=full)

    def receive(self, packet: bytes) -> None:
        """A STUN packet came to WireGuard's port; what answers nothing that was asked is ignored."""
        if self._running is None:
            return
        with suppress(FrameError):
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
        with suppress(TimeoutError):
            async with asyncio.timeout(STUN_SECONDS) as self._limit, asyncio.TaskGroup() as group:
                for node in nodes:
                    group.create_task(self._ask_node(node, measurement))

    async def _ask_node(self, node: DERPNode, measurement: Measurement) -> None:
        port = node.effective_stun_port
        if port is None or not 0 < port < 65_536:
            return
        hosts = await self._hosts(node, measurement.os_has_ipv6)
        self._ask_second_port(node, hosts, measurement)
        async with asyncio.TaskGroup() as group:
            for host in hosts:
                group.create_task(self._ask(node.region_id, (host, port), measurement))

    def _ask_second_port(self, node: DERPNode, hosts: Iterable[str], measurement: Measurement) -> None:
        """Asked first, so that its answer does not come last; nobody waits for it."""
        port = second_port(node)
        for host in hosts:
            if port is not None and ":" not in host:
                txid = self._entropy(stun.TXID_BYTES)
                now = asyncio.get_running_loop().time()
                measurement.sent(txid, node.region_id, (host, port), now, may_be_silent=True)
                self._send(stun.binding_request(txid), (host, port))

    async def _hosts(self, node: DERPNode, ipv6: bool) -> list[str]:
        """One address of each family that this host has."""
        try:
            hosts = [host for host, _ in await self._resolver.addresses(node)]
        except (OSError, RelayError, UnicodeError) as error:
            log.info("relay %s: %s", node.name, error)
            return []
        v4 = [host for host in hosts if ":" not in host][:1]
        return v4 + [host for host in hosts if ":" in host and ipv6][:1]

    async def _ask(self, region: int, server: Address, measurement: Measurement) -> None:
        answered = self._answers.setdefault(server, asyncio.Event())
        for gap in STUN_GAPS:
            txid = self._entropy(stun.TXID_BYTES)
            measurement.sent(txid, region, server, asyncio.get_running_loop().time())
            self._send(stun.binding_request(txid), server)
            with suppress(TimeoutError):
                async with asyncio.timeout(gap):
                    await answered.wait()
                return

    # --- TLS ---------------------------------------------------------------------------------------------

    async def _measure_by_tls(
        self, nodes: Iterable[DERPNode], last: Report | None, measurement: Measurement, *, full: bool
    ) -> None:
        """UDP is blocked. Latencies of a full netcheck are good until the next one."""
        if not full and last is not None and not last.udp and last.region_latency:
            for region, latency in last.region_latency.items():
                measurement.measured(region, latency)
            return
        first = {
            node.region_id: node for node in reversed(list(nodes)) if not node.stun_only and is_plain(node)
        }
        async with asyncio.TaskGroup() as group:
            for node in list(first.values())[:MAX_TLS_REGIONS]:
                group.create_task(self._measure_node(node, measurement))

    async def _measure_node(self, node: DERPNode, measurement: Measurement) -> None:
        try:
            async with asyncio.timeout(TLS_SECONDS):
                latency = await tls_latency(node, resolver=self._resolver, mark=self._mark)
        except (OSError, RelayError, UnicodeError) as error:
            log.info("relay %s cannot be measured over TLS: %s", node.name, error)
        else:
            measurement.measured(node.region_id, latency)
