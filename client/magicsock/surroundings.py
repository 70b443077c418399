"""What this node knows of its own network, kept fresh: netchecks, home relay, own endpoints."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from client.magicsock.captive import behind_portal, checks
from client.magicsock.derp import DerpPool
from client.magicsock.endpoints import Address, Endpoint, own_endpoints, reachable_hosts, read_local_addresses
from client.magicsock.netcheck import Homes, Report, hosts_of, remembering, same_network, sole_home
from client.magicsock.probes import Prober
from client.net.portmap.mapper import PortMapper
from wire.control import NetInfo
from wire.derpmap import DERPMap

log = logging.getLogger(__name__)

# Source: tailscale wgengine/magicsock/magicsock.go.
RESTUN_MIN, RESTUN_SPREAD = 20.0, 6.0  # between STUN rounds while a session is active
FRESH = 27.0  # STUN younger than this is good enough for a call-me-maybe
FRESH_WITHOUT_UDP = 4.0  # found blocked, UDP is tried again before each call: it may be open by now
FULL = 300.0  # between full netchecks
GIVE_UP = 8.0  # a home relay without an answer for so long is none, whatever was measured
NO_PORTALS = "disable-captive-portal-detection"  # an attribute of the node
MIN_GAP = 1.0  # whatever asks: at most one netcheck in this time


class Surroundings:
    """``on_measured`` is called after each netcheck. ``connected``: the server can pass on a new home."""

    def __init__(
        self,
        *,
        send: Callable[[bytes, Address], bool],
        pool: DerpPool,
        listen_port: int,
        tunnel: str,
        mark: int,
        entropy: Callable[[int], bytes],
        is_active: Callable[[], bool],
        on_endpoints: Callable[[tuple[Endpoint, ...]], None],
        on_net_info: Callable[[NetInfo], None],
        on_measured: Callable[[], None],
        make_mapper: Callable[[Callable[[], None]], PortMapper],
    ) -> None:
        self.connected = True
        self.control_url = ""
        self.looks_for_portals = True
        self.endpoints: tuple[Endpoint, ...] = ()
        self.report: Report | None = None
        self._pool = pool
        self._port = listen_port
        self._tunnel = tunnel
        self._entropy = entropy
        self._is_active = is_active
        self._on_endpoints = on_endpoints
        self._on_net_info = on_net_info
        self._on_measured = on_measured
        self._mark = mark
        self._prober = Prober(send=send, entropy=entropy, mark=mark)
        self.mapper = make_mapper(self._publish_again)
        self._silence: asyncio.TimerHandle | None = None  # the home relay's, from its beginning to its end
        self._home_is_dead = False
        self._portal: bool | None = None
        self._hosts: list[str] = []
        self._homes = Homes()
        self._home = 0
        self._map = DERPMap()
        self._told: NetInfo | None = None
        self._loop = asyncio.get_running_loop()
        self._wanted = asyncio.Event()
        self._lock = asyncio.Lock()
        self._measured_at = self._full_at = float("-inf")

    @property
    def is_fresh(self) -> bool:
        """Whether our endpoints are known well enough to tell them to a peer."""
        udp = self.report is not None and self.report.udp
        return self._loop.time() - self._measured_at < (FRESH if udp else FRESH_WITHOUT_UDP)

    def refresh(self) -> None:
        """Measure as soon as possible."""
        self._wanted.set()

    def set_map(self, derp_map: DERPMap, *, home: int) -> None:
        """The netmap's relays. ``home``: what the server believes; good until something was measured.

        Where there is one region only, nothing need be measured: be there, and say so, at once.
        """
        if derp_map == self._map:
            return
        self._map = derp_map
        guess = home if home in derp_map.regions else sole_home(derp_map)
        if not self._home and guess:
            self._set_home(guess)
            if guess != home:
                self._tell(NetInfo(preferred_derp=guess))
        self.link_changed()

    def link_changed(self) -> None:
        self._measured_at = self._full_at = float("-inf")
        self._portal = None
        self.mapper.refresh()
        self.refresh()

    def relay_changed(self, region: int, answers: bool) -> None:
        """A home relay that is lost, or silent, may have a better neighbour; one that stays so surely has."""
        if region != self._home:
            return
        if answers:
            self._home_answers()
        else:
            self._home_is_silent()
            self._measure_all()

    def _home_answers(self) -> None:
        self._home_is_dead = False
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _home_is_silent(self) -> None:
        if self._silence is None:
            self._silence = self._loop.call_later(GIVE_UP, self._give_up_home)

    def _give_up_home(self) -> None:
        """Even if its STUN answers: without a connection it is no home."""
        self._home_is_dead = True
        self._measure_all()

    def _measure_all(self) -> None:
        self._full_at = float("-inf")
        self.refresh()

    def close(self) -> None:
        self._home_answers()

    def receive_stun(self, packet: bytes) -> None:
        self._prober.receive(packet)

    async def run(self) -> None:
        """Until cancelled: on demand, and now and then while there is traffic."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wanted.wait()
            if self._map.regions and (self._wanted.is_set() or self._is_active()):
                await self.measure()
                await asyncio.sleep(MIN_GAP)
            else:
                self._wanted.clear()

    async def netcheck(self) -> Report:
        """All that can be found out, also what is not needed: for a person."""
        _, self._portal = await asyncio.gather(self.mapper.look_for_all(), self._behind_portal())
        return await self.measure(full=True)

    async def measure(self, *, full: bool = False) -> Report:
        """One netcheck, and what follows from it."""
        async with self._lock:
            self._wanted.clear()
            now = self._loop.time()
            full = full or now - self._full_at >= FULL
            self._hosts = await self._own_hosts()
            measurement = await self._prober.measure(
                self._map,
                self._homes.last,
                home=self._home,
                full=full,
                os_has_ipv6=any(":" in host and host != "::1" for host in self._hosts),
            )
            self._measured_at = self._loop.time()
            if full:
                self._full_at = now
            if full and not measurement.any_answer:
                self._portal = await self._behind_portal()
            report = self._take(measurement.report())
        self._on_measured()
        return report

    def _take(self, found: Report) -> Report:
        """What was just found, with what else is known, is the report; tell who wants to know."""
        last = self.report
        report = self._choose_home(self._completed(remembering(found, last)))
        self.report = report
        if last is not None and hosts_of(last.global_v4) != hosts_of(report.global_v4):
            self.mapper.refresh()  # the router has another public address, or is another one
        self._publish(report)
        return report

    def _completed(self, report: Report) -> Report:
        """With what does not come from STUN."""
        offers = self.mapper.offers
        return replace(
            report,
            upnp=offers.upnp,
            pmp=offers.pmp,
            pcp=offers.pcp,
            mapped=self.mapper.external,
            captive_portal=self._portal,
        )

    def _publish_again(self) -> None:
        """The router forwards another port to us now, or none."""
        if self.report is not None:
            self.report = self._completed(self.report)
            self._publish(self.report)

    async def _behind_portal(self) -> bool | None:
        if not self.looks_for_portals:
            return None
        wanted = checks(self._map, home=self._home, control_url=self.control_url)
        return await behind_portal(wanted, resolver=self._pool.resolver, mark=self._mark)

    async def _own_hosts(self) -> list[str]:
        try:
            return reachable_hosts(await read_local_addresses(), tunnel=self._tunnel)
        except OSError as error:
            log.warning("cannot read this host's addresses: %s", error)
            return []

    def _choose_home(self, report: Report) -> Report:
        report = self._homes.choose(
            report,
            self._map,
            self._loop.time(),
            current=self._home,
            alive=self._pool.answers(self._home),
            dead=self._home_is_dead,
            stay=not self.connected,
        )
        self._set_home(report.preferred_derp)
        return report

    def _set_home(self, region: int) -> None:
        if region != self._home:
            self._home = region
            self._home_answers()
            self._pool.set_home(region)
            if region and not self._pool.answers(region):
                self._home_is_silent()

    def _publish(self, report: Report) -> None:
        """Tell the daemon what changed."""
        endpoints = own_endpoints(self._hosts, report, port=self._port)
        if set(endpoints) != set(self.endpoints):
            log.info("own endpoints: %s", ", ".join(map(str, endpoints)))
            self._on_endpoints(endpoints)
        self.endpoints = endpoints
        self._tell(report.net_info())

    def _tell(self, net_info: NetInfo) -> None:
        if self._told is None or not same_network(self._told, net_info):
            self._told = net_info
            self._on_net_info(net_info)

    def _pause(self) -> float:
        return RESTUN_MIN + RESTUN_SPREAD * int.from_bytes(self._entropy(2)) / 0xFFFF
