"""A network in memory with a clock of its own: sites behind NATs, a relay, and packets that take their time.

Nothing here waits: :meth:`World.run` jumps from event to event. What is random comes from a seed.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Address = tuple[str, int]
Receive = Callable[[Any, Address], None]

LAN_DELAY, INTERNET_DELAY, RELAY_DELAY = 0.0005, 0.02, 0.03
MAPPING_LIFE = 120.0


class World:
    """Time, and the public internet. A site is found by its public IPv4 address or a host's IPv6 one."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 1000.0
        self.random = random.Random(seed)
        self.loss = 0.0
        self.relay_works = True
        self.sites: dict[str, Site] = {}
        self.cuts: set[tuple[str, str]] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, delay: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._order), act))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = end

    def route(self, source: Address, to: Address, packet: Any) -> None:
        """From one site's outside to another's."""
        site = self.sites.get(to[0])
        if site is None or (source[0], to[0]) in self.cuts or self.random.random() < self.loss:
            return
        self.after(INTERNET_DELAY, lambda: site.arrive(packet, source, to))

    def cut(self, one: str, other: str, *, both: bool = True) -> None:
        """From now on no packet passes directly from ``one`` address to the ``other``."""
        self.cuts.add((one, other))
        if both:
            self.cuts.add((other, one))


@dataclass
class Mapping:
    inside: Address
    outside: Address
    peers: dict[Address, float] = field(default_factory=dict)


class Site:
    """A LAN and its router. ``hard``: an outside port for each destination; both kinds filter by sender."""

    def __init__(
        self, world: World, public: str, *, hard: bool = False, udp: bool = True, open: bool = False
    ) -> None:
        self.world = world
        self.public = public
        self.hard = hard
        self.udp = udp
        self.open = open
        self.hosts: dict[str, Receive] = {}
        self.mappings: dict[Any, Mapping] = {}
        self.flows: dict[tuple[Address, Address], float] = {}
        world.sites[public] = self

    def attach(self, host: str, receive: Receive) -> None:
        self.hosts[host] = receive
        if ":" in host:
            self.world.sites[host] = self

    def send(self, source: Address, to: Address, packet: Any) -> None:
        """From a host of this site; there is no hairpin: the public address does not work from inside."""
        world = self.world
        if to[0] in self.hosts:
            receive = self.hosts[to[0]]
            world.after(LAN_DELAY, lambda: receive(packet, source))
        elif self.udp and to[0] != self.public:
            world.route(self._translate(source, to), to, packet)

    def arrive(self, packet: Any, source: Address, to: Address) -> None:
        inside = self._inside(source, to) if self.udp else None
        if inside is not None and inside[0] in self.hosts:
            receive = self.hosts[inside[0]]
            receive(packet, source)

    def seen_as(self, source: Address, server: Address) -> Address | None:
        """What a STUN server would say."""
        return self._translate(source, server) if self.udp else None

    def rebind(self) -> None:
        """The router restarts: every mapping and every flow is forgotten."""
        self.mappings.clear()
        self.flows.clear()

    def _translate(self, source: Address, to: Address) -> Address:
        now = self.world.now
        if ":" in source[0] or self.open:
            self.flows[source, to] = now
            return source
        key = (source, to) if self.hard else source
        mapping = self.mappings.get(key)
        if mapping is None or not any(now - at < MAPPING_LIFE for at in mapping.peers.values()):
            outside = (self.public, self.world.random.randint(20_000, 60_000))
            self.mappings[key] = mapping = Mapping(source, outside)
        mapping.peers[to] = now
        return mapping.outside

    def _inside(self, source: Address, to: Address) -> Address | None:
        now = self.world.now
        if self.open:
            return to
        if ":" in to[0]:
            return to if now - self.flows.get((to, source), -1e9) < MAPPING_LIFE else None
        for mapping in self.mappings.values():
            if mapping.outside == to and now - mapping.peers.get(source, -1e9) < MAPPING_LIFE:
                mapping.peers[source] = now
                return mapping.inside
        return None
