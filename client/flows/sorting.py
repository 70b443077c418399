"""From what the kernel counted to flows: both ways as one, sorted by where they lead, bounded. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from client.flows.table import Count, Ends, Reading
from client.net.serviceaddresses import SERVICE
from client.prefixes import TAILNET_RANGES, IPAddress, Network, tailnet_addresses
from client.routing import accepted_subnets, is_subnet, networks
from wire.flows import MAX_FLOWS, Flow, Flows, format_end, without_destinations
from wire.netmap import NetMap

# What one report has of each kind at most; together no more than the server takes.
MOST = {"virtual": MAX_FLOWS // 2, "subnet": MAX_FLOWS // 4, "exit": 100, "physical": 400}
NOTHING = Count(0, 0)
NOBODYS = {*SERVICE, *map(ipaddress.ip_address, ("0.0.0.0", "255.255.255.255", "::"))}  # noqa: S104


class Place(Enum):
    """Where an address is, as this node sees it."""

    HERE = auto()
    TAILNET = auto()
    SUBNET = auto()
    ELSEWHERE = auto()
    NOWHERE = auto()  # nobody's: multicast, link-local, the resolver in this node


@dataclass(frozen=True, slots=True)
class Sorter:
    """``own`` are this node's addresses, ``subnets`` the networks that it reaches by routers or serves."""

    own: frozenset[IPAddress]
    subnets: tuple[Network, ...]

    @classmethod
    def of(cls, netmap: NetMap) -> Sorter:
        """By a netmap :func:`client.routing.in_use`."""
        served = filter(is_subnet, networks(netmap.node.routed_prefixes))
        return cls(
            frozenset(tailnet_addresses(netmap.node.addresses)),
            tuple({*accepted_subnets(netmap), *served}),
        )

    def sorted(self, reading: Reading) -> dict[str, Flows]:
        """Flows by kind, each bounded by :data:`MOST`; of what left by an exit node no destinations."""
        found: dict[str, list[Flow]] = {"virtual": [], "subnet": [], "exit": []}
        places = _Places(self)
        for ends, (sent, received) in joined(reading).items():
            kind = self._kind(places[ends.source], places[ends.destination])
            if kind:
                found[kind].append(flow_of(ends, sent, received))
        hidden = {**found, "exit": without_destinations(tuple(found["exit"]))}
        return {kind: bounded(flows, MOST[kind]) for kind, flows in hidden.items()}

    @staticmethod
    def _kind(source: Place, destination: Place) -> str:
        places = {source, destination}
        if Place.NOWHERE in places:
            return ""
        if Place.SUBNET in places:
            return "subnet"
        return "exit" if Place.ELSEWHERE in places else "virtual"

    def place(self, text: str) -> Place:
        """Raises ``ValueError`` for what is no address."""
        address = ipaddress.ip_address(text)
        if address in self.own:
            return Place.HERE
        if address in NOBODYS or address.is_multicast or address.is_link_local:
            return Place.NOWHERE
        for place, ranges in ((Place.TAILNET, TAILNET_RANGES), (Place.SUBNET, self.subnets)):
            if any(address.version == one.version and address in one for one in ranges):
                return place
        return Place.ELSEWHERE


class _Places(dict[str, Place]):
    """Looked up once for each address."""

    def __init__(self, sorter: Sorter) -> None:
        self._sorter = sorter

    def __missing__(self, text: str) -> Place:
        found = self[text] = self._sorter.place(text)
        return found


def joined(reading: Reading) -> dict[Ends, tuple[Count, Count]]:
    """What went and what came back, by the ends of what goes."""
    came: Mapping[Ends, Count] = {ends.reversed(): count for ends, count in reading.came.items()}
    both = reading.went.keys() | came.keys()
    return {ends: (reading.went.get(ends, NOTHING), came.get(ends, NOTHING)) for ends in both}


def flow_of(ends: Ends, sent: Count, received: Count) -> Flow:
    return Flow(
        proto=ends.protocol,
        src=format_end(ipaddress.ip_address(ends.source), ends.source_port),
        dst=format_end(ipaddress.ip_address(ends.destination), ends.destination_port),
        tx_packets=sent.packets,
        tx_bytes=sent.bytes,
        rx_packets=received.packets,
        rx_bytes=received.bytes,
    )


def bounded(flows: Iterable[Flow], most: int) -> Flows:
    """In order of their ends. Of more than ``most`` the smallest are added up by addresses, without ports."""
    found = sorted(flows, key=_size, reverse=True)
    if len(found) > most:
        kept, rest = found[: most // 2], found[most // 2 :]
        found = [*kept, *sorted(_without_ports(rest), key=_size, reverse=True)][:most]
    return tuple(sorted(found, key=lambda flow: (flow.src, flow.dst, flow.proto)))


def _size(flow: Flow) -> int:
    return flow.tx_bytes + flow.rx_bytes


def _without_ports(flows: Iterable[Flow]) -> Iterable[Flow]:
    summed: dict[tuple[int, str, str], Flow] = {}
    for flow in flows:
        src, dst = (end.rpartition(":")[0] + ":0" for end in (flow.src, flow.dst))
        known = summed.get((flow.proto, src, dst), Flow(proto=flow.proto, src=src, dst=dst))
        summed[flow.proto, src, dst] = added(known, flow)
    return summed.values()


def added(flow: Flow, other: Flow) -> Flow:
    """``flow`` with what ``other`` counted."""
    return replace(
        flow,
        tx_packets=flow.tx_packets + other.tx_packets,
        tx_bytes=flow.tx_bytes + other.tx_bytes,
        rx_packets=flow.rx_packets + other.rx_packets,
        rx_bytes=flow.rx_bytes + other.rx_bytes,
    )
