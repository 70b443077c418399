"""The filter in the kernel, packet by packet, against a model of what the rules mean.

The model reads the rules as the server words them and shares no code with the filter. Source of what they
mean: tailscale wgengine/filter/filter.go (runIn4, runIn6), match.go.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network, summarize_address_range
from typing import Any

import pytest

from client.net.firewall import Firewall
from client.net.forwarding import Gateway
from tests.client.fakes import netmap, node
from tests.client.net.crafted import LAN, TUN, Host, drain, forward_packets, interface, marked, put, run
from tests.client.net.namespace import in_namespace
from wire.netmap import FilterRule, NetMap, PortRange

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
scapy = pytest.importorskip("scapy.all")
pytestmark = pytest.mark.root

SEED = 20260
PACKETS, FILTERS = 10_000, 20
RELOADS = 30
OWN = ("100.64.0.1", "fd7a:115c:a1e0::1")
ROUTES = ("192.168.77.0/24", "fd00:77::/64")
GATEWAY = Gateway(frozenset(map(ip_network, ROUTES)))
PLAIN_GATEWAY = replace(GATEWAY, masquerade=False)  # two without ports cannot both bear one address
PRINTER = "example.com/cap/printer"
PEERS = [node(number, cap_map={PRINTER: None} if number % 3 == 0 else {}) for number in range(2, 12)]
SOURCES = {
    4: [*(peer.addresses[0].partition("/")[0] for peer in PEERS), "100.127.9.9", "10.5.0.7", "203.0.113.5"],
    6: [*(peer.addresses[1].partition("/")[0] for peer in PEERS), "fd7a:115c:a1e0:9::9", "2001:db8::7"],
}
TARGETS = {
    4: [OWN[0]] * 4 + ["192.168.77.5", "192.168.77.200", "192.168.78.1", "198.51.100.7", "100.64.0.99"],
    6: [OWN[1]] * 4 + ["fd00:77::5", "fd00:77::ff:1", "fd00:78::1", "2001:db8:9::1"],
}
PORTS = (22, 53, 80, 443, 3389, 8080, 65535)
ICMP_KINDS = {4: (0, 3, 5, 8, 11, 12, 13, 17), 6: (1, 2, 3, 4, 128, 129, 139)}
PASSING_ICMP = {4: {0, 3, 11, 12}, 6: {1, 2, 3, 4, 129}}  # answers and errors


# --- what the rules mean ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packet:
    """``port`` is none for ICMP, whose type is ``kind``, nor for what has no ports."""

    number: int
    source: str
    target: str
    protocol: int
    port: int = 0
    kind: int = 0
    flags: str = "S"

    @property
    def version(self) -> int:
        return ip_address(self.target).version


def _holds(text: str, address: IPv4Address | IPv6Address) -> bool:
    if text == "*":
        return True
    if "-" in text:
        first, last = map(ip_address, text.split("-"))
        return first.version == address.version and any(
            address in part for part in summarize_address_range(first, last)
        )
    return address in ip_network(text)


ABLE = {address.partition("/")[0]: peer.cap_map for peer in PEERS for address in peer.addresses}


def _is_from(rule: FilterRule, packet: Packet) -> bool:
    return any(
        text.partition(":")[2] in ABLE.get(packet.source, {})
        if text.startswith("cap:")
        else _holds(text, ip_address(packet.source))
        for text in rule.sources
    )


def lets_in(shown: NetMap, packet: Packet) -> bool:
    """Whether a packet that nothing went before may come in."""
    target = ip_address(packet.target)
    if packet.target not in OWN and not any(target in ip_network(route) for route in ROUTES):
        return False
    if packet.protocol in (1, 58) and packet.kind in PASSING_ICMP[packet.version]:
        return True
    return any(_opens(rule, packet) for rule in shown.filter_rules or () if _is_from(rule, packet))


def _opens(rule: FilterRule, packet: Packet) -> bool:
    met = [item for item in rule.destinations if _holds(item.ip, ip_address(packet.target))]
    if packet.protocol in (1, 58):
        return bool(met)
    if packet.protocol == 99 or packet.protocol not in (rule.protocols or (6, 17, 1, 58)):
        return False
    if packet.protocol in (6, 17, 132):
        return any(item.first <= packet.port <= item.last for item in met)
    return any((item.first, item.last) == (0, 65535) for item in met)


# --- what is tried ---------------------------------------------------------------------------------------


def some_filter(chance: random.Random) -> NetMap:
    """Rules in all the forms that a server words them in."""
    rules = tuple(
        FilterRule(
            sources=tuple(chance.sample(_SOURCE_TEXTS, chance.randint(1, 4))),
            destinations=tuple(_destination(chance) for _ in range(chance.randint(1, 3))),
            protocols=chance.choice(
                [(), (), (6,), (17,), (6, 17), (132,), (47,), (6, 17, 47, 89), (1,), (50, 99)]
            ),
        )
        for _ in range(chance.randint(0, 4))
    )
    return netmap(*PEERS, packet_filters={"base": rules})


_SOURCE_TEXTS = [
    "100.64.0.2",
    "100.64.0.3/32",
    "100.64.0.4-100.64.0.7",
    "100.64.0.8/30",
    "100.64.0.0-100.115.91.255",
    "10.5.0.0/24",
    "*",
    f"cap:{PRINTER}",
    "fd7a:115c:a1e0::2",
    "fd7a:115c:a1e0::4-fd7a:115c:a1e0::6",
    "fd7a:115c:a1e0::/48",
]


def _destination(chance: random.Random) -> PortRange:
    text = chance.choice(["*", *OWN, *ROUTES, "192.168.77.0/25", "100.64.0.1-100.64.0.9", "100.64.0.99"])
    first, last = chance.choice(
        [(0, 65535), (0, 65535), (22, 22), (80, 443), (53, 53), (0, 1023), (1024, 65535)]
    )
    return PortRange(ip=text, first=first, last=last)


def some_packet(chance: random.Random, number: int) -> Packet:
    version = chance.choice((4, 6))
    protocol = chance.choice([6, 6, 6, 17, 17, 17, 1 if version == 4 else 58, 132, 47, 50, 89, 99])
    return Packet(
        number=number,
        source=chance.choice(SOURCES[version]),
        target=chance.choice(TARGETS[version]),
        protocol=protocol,
        port=chance.choice(PORTS) if protocol in (6, 17, 132) else 0,
        kind=chance.choice(ICMP_KINDS[version]) if protocol in (1, 58) else 0,
        flags=chance.choice(["S", "S", "A", "PA", "FA", "R", "SA", "SF", "SEC"]),
    )


def built(packet: Packet) -> bytes:
    """Each is the first of its connection: its number is the port or the name that it comes from."""
    own_port = 10_000 + packet.number % 50_000
    ends = {"src": packet.source, "dst": packet.target}
    if packet.version == 4:
        return bytes(scapy.IP(**ends, proto=packet.protocol) / _inside(packet, own_port))
    return bytes(scapy.IPv6(**ends, nh=packet.protocol) / _inside(packet, own_port))


def _inside(packet: Packet, own_port: int) -> Any:
    content = scapy.Raw(marked(packet.number))
    match packet.protocol:
        case 6:
            return scapy.TCP(sport=own_port, dport=packet.port, flags=packet.flags, ack=1) / content
        case 17:
            return scapy.UDP(sport=own_port, dport=packet.port) / content
        case 132:
            chunk = scapy.SCTPChunkInit(init_tag=1, a_rwnd=1500, n_out_streams=1, n_in_streams=1)
            return scapy.SCTP(sport=own_port, dport=packet.port, tag=0) / chunk / content
        case 1:
            return scapy.ICMP(type=packet.kind, id=own_port) / content
        case 58 if packet.kind in (128, 129):
            kind = scapy.ICMPv6EchoRequest if packet.kind == 128 else scapy.ICMPv6EchoReply
            return kind(id=own_port, data=marked(packet.number))
        case 58:
            return scapy.ICMPv6Unknown(type=packet.kind, msgbody=bytes(4) + marked(packet.number))
        case _:
            return content


# --- the kernel ------------------------------------------------------------------------------------------


@contextmanager
def network() -> Iterator[Host]:
    """A namespace with a network behind it, where everything would lead out that the filter let through."""
    with in_namespace():
        forward_packets()
        run("ip", "link", "set", "lo", "up")
        with interface(LAN, "192.168.77.1/24", "fd00:77::1/64") as lan:
            run("ip", "route", "add", "default", "dev", LAN)
            run("ip", "-6", "route", "add", "default", "dev", LAN)
            host = Host(lan)
            try:
                yield host
            finally:
                host.close()


@contextmanager
def tunnel() -> Iterator[int]:
    """The node's own interface, up from the beginning."""
    with interface(TUN, f"{OWN[0]}/10", f"{OWN[1]}/48") as descriptor:
        for prefix in ("10.5.0.0/24", "203.0.113.0/24", "2001:db8::/64"):
            run("ip", "route", "add", prefix, "dev", TUN)
        yield descriptor


def named(numbers: set[int], packets: Sequence[Packet]) -> list[Packet]:
    return [packet for packet in packets if packet.number in numbers]


async def test_of_ten_thousand_packets_those_arrive_that_the_rules_let_in() -> None:
    chance = random.Random(SEED)
    with network() as host, tunnel() as descriptor:
        passed = 0
        for turn in range(FILTERS):
            shown = some_filter(chance)
            await Firewall(TUN).apply(shown, shields_up=False, gateway=PLAIN_GATEWAY)
            each = PACKETS // FILTERS
            packets = [some_packet(chance, turn * each + index) for index in range(each)]
            put(descriptor, map(built, packets))
            arrived = host.arrived()
            drain(descriptor)
            meant = {packet.number for packet in packets if lets_in(shown, packet)}
            assert named(arrived - meant, packets) == [], shown.filter_rules
            assert named(meant - arrived, packets) == [], shown.filter_rules
            passed += len(arrived)
        assert PACKETS // 10 < passed < PACKETS * 9 // 10  # neither was all of it forbidden, nor little


class Flood:
    """The same packets over and over, from a thread of its own, while the test does something else."""

    def __init__(self, descriptor: int, packets: Sequence[bytes]) -> None:
        self._descriptor = descriptor
        self._packets = packets
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.rounds = 0

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._ended.is_set():
            put(self._descriptor, self._packets)
            self.rounds += 1


def judged(shown: Sequence[NetMap], how: Callable[[list[bool]], bool], count: int) -> list[Packet]:
    """So many packets, first ones of a connection, about which all these netmaps say the same."""
    chance, found = random.Random(SEED + 1), []
    while len(found) < count:
        packet = replace(some_packet(chance, len(found)), flags="S")
        if how([lets_in(one, packet) for one in shown]):
            found.append(packet)
    return found


def forbidden_by_all(verdicts: list[bool]) -> bool:
    return not any(verdicts)


ONLY_SSH = FilterRule(sources=("100.64.0.2",), destinations=(PortRange(ip=OWN[0], first=22, last=22),))
ONLY_WEB = FilterRule(
    sources=(f"cap:{PRINTER}", "fd7a:115c:a1e0::/48"),
    destinations=(PortRange(ip=OWN[0], first=80, last=80), PortRange(ip=ROUTES[0], first=443, last=443)),
    protocols=(6,),
)


def with_rules(*rules: FilterRule) -> NetMap:
    return netmap(*PEERS, packet_filters={"base": rules})


async def test_while_rules_change_nothing_arrives_that_neither_lets_in() -> None:
    """Rules to and fro, shields up and down, routes offered and taken back."""
    turns: list[tuple[NetMap, dict[str, Any]]] = [
        (with_rules(ONLY_SSH), {"shields_up": False, "gateway": GATEWAY}),
        (with_rules(ONLY_WEB), {"shields_up": False, "gateway": GATEWAY}),
        (with_rules(ONLY_WEB), {"shields_up": True, "gateway": GATEWAY}),
        (with_rules(ONLY_SSH, ONLY_WEB), {"shields_up": False}),
    ]
    packets = judged([with_rules(ONLY_SSH, ONLY_WEB)], forbidden_by_all, 500)
    with network() as host:
        firewall = Firewall(TUN)
        await firewall.apply(turns[0][0], **turns[0][1])
        with tunnel() as descriptor:
            with Flood(descriptor, list(map(built, packets))) as flood:
                for turn in range(RELOADS):
                    shown, options = turns[turn % len(turns)]
                    await firewall.apply(shown, **options)
            assert flood.rounds > 1
            assert named(host.arrived(), packets) == []


async def test_at_the_start_nothing_arrives_before_the_rules_are_in_force() -> None:
    """The interface comes after the filter, and there are packets from its first moment on."""
    packets = judged([with_rules(ONLY_SSH)], forbidden_by_all, 300)
    allowed = judged([with_rules(ONLY_SSH)], all, 3)
    with network() as host:
        for _ in range(5):
            firewall = Firewall(TUN)
            await firewall.apply(with_rules(ONLY_SSH), shields_up=False, gateway=GATEWAY)
            with tunnel() as descriptor, Flood(descriptor, list(map(built, packets))):
                await asyncio.sleep(0.1)
            await firewall.remove()
        assert named(host.arrived(), packets) == []
        await firewall.apply(with_rules(ONLY_SSH), shields_up=False, gateway=GATEWAY)
        with tunnel() as descriptor:
            put(descriptor, map(built, allowed))
            assert len(host.arrived()) == len(allowed)


async def test_a_daemon_that_begins_anew_opens_nothing_meanwhile() -> None:
    """One that was killed leaves its filter, which the next one replaces."""
    packets = judged([with_rules(ONLY_SSH)], forbidden_by_all, 300)
    with network() as host:
        await Firewall(TUN).apply(with_rules(ONLY_SSH), shields_up=False, gateway=GATEWAY)
        with tunnel() as descriptor, Flood(descriptor, list(map(built, packets))):
            for _ in range(RELOADS):
                await Firewall(TUN).apply(with_rules(ONLY_SSH), shields_up=False, gateway=GATEWAY)
        assert named(host.arrived(), packets) == []


async def test_a_device_without_ipv4_takes_in_none_of_it() -> None:
    only_six = netmap(
        *PEERS,
        own=node(1, addresses=(f"{OWN[1]}/128",)),
        packet_filters={"base": (FilterRule(sources=("*",), destinations=(PortRange(ip="*"),)),)},
    )
    packets = [
        Packet(number=number, source=SOURCES[version][0], target=target, protocol=17, port=53)
        for number, (version, target) in enumerate(((4, OWN[0]), (6, OWN[1])))
    ]
    with network() as host, tunnel() as descriptor:
        await Firewall(TUN).apply(only_six, shields_up=False)
        put(descriptor, map(built, packets))
        assert host.arrived() == {1}


async def test_connections_that_run_when_rules_narrow_go_on_and_new_ones_are_judged() -> None:
    everything = with_rules(FilterRule(sources=("*",), destinations=(PortRange(ip="*"),)))
    running = Packet(number=1, source="100.64.0.5", target=OWN[0], protocol=6, port=8080, flags="A")
    new = replace(running, number=2, flags="S")
    with network() as host, tunnel() as descriptor:
        firewall = Firewall(TUN)
        await firewall.apply(everything, shields_up=False)
        await firewall.apply(with_rules(ONLY_SSH), shields_up=False)
        put(descriptor, [built(running), built(new)])
        assert host.arrived() == {1}
