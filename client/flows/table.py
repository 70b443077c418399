"""Counting flows: an nftables table of our own with sets that fill themselves, only while flows are logged.

What comes is counted as it leaves the tunnel, before any filter or translation, and what goes as it enters.
Sets are bounded: once those with ports are full, what is new is counted by its addresses alone. They come in
generations, so that nothing is lost while one is read: the rules change over to the next in one transaction.

JSON has no word for sets that rules fill; so this is nft's own language, and no text of a server is in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from client.net.nft import Call, call_nft, listed

TABLE = "inet trenza-flows"
REMOVED = f"add table {TABLE}\ndelete table {TABLE}\n"
MAX_WITH_PORTS, MAX_WITHOUT = 4096, 1024  # elements of a set
CAME, WENT = "came", "went"
# Before connections are tracked and after addresses are translated: both ends are as they are on the wire.
HOOKS = {CAME: ("prerouting", -300, "iifname"), WENT: ("postrouting", 300, "oifname")}
FAMILIES = {4: ("ipv4", "ip"), 6: ("ipv6", "ip6")}
WITH_PORTS = "{ 6, 17, 132 }"  # TCP, UDP, SCTP
PORTS_AND_ADDRESSES, ADDRESSES = 5, 3  # members of an element


class Ends(NamedTuple):
    """Who sent what kind to whom. Ports are 0 where there are none, or were not counted apart."""

    protocol: int
    source: str
    source_port: int
    destination: str
    destination_port: int

    def reversed(self) -> Ends:
        return Ends(self.protocol, self.destination, self.destination_port, self.source, self.source_port)


class Count(NamedTuple):
    packets: int
    bytes: int


Counts = dict[Ends, Count]


@dataclass(frozen=True, slots=True)
class Reading:
    """What came out of the tunnel in a time, and what went in, by who sent it to whom."""

    came: Counts = field(default_factory=dict)
    went: Counts = field(default_factory=dict)


def set_names(generation: int) -> list[str]:
    """The sets of one generation."""
    return [name for way in HOOKS for version in FAMILIES for name in _names(way, version, generation)]


def _names(way: str, version: int, generation: int) -> tuple[str, str]:
    return f"{way}{version}ports_{generation}", f"{way}{version}_{generation}"


def counting(interface: str, generation: int) -> str:
    """nft's script that has this generation count from now on; earlier ones are left to be read. Pure."""
    return "\n".join([f"add table {TABLE}", *_lines(interface, generation)]) + "\n"


def _lines(interface: str, generation: int) -> Iterator[str]:
    for way, (hook, priority, side) in HOOKS.items():
        options = f"{{ type filter hook {hook} priority {priority}; policy accept; }}"
        yield f"add chain {TABLE} {way} {options}"
        yield f"flush chain {TABLE} {way}"
        yield f'add rule {TABLE} {way} {side} != "{interface}" return'
        for version, (family, header) in FAMILIES.items():
            with_ports, without = _names(way, version, generation)
            address = f"{family}_addr"
            yield _set(
                with_ports,
                f"inet_proto . {address} . inet_service . {address} . inet_service",
                MAX_WITH_PORTS,
            )
            yield _set(without, f"inet_proto . {address} . {address}", MAX_WITHOUT)
            ends = f"{header} saddr . th sport . {header} daddr . th dport"
            of_version = f"add rule {TABLE} {way} meta nfproto {family}"
            # A rule whose set is full goes no further: the next one has its turn.
            yield f"{of_version} meta l4proto {WITH_PORTS} {_count(with_ports, ends)} return"
            yield f"{of_version} {_count(without, f'{header} saddr . {header} daddr')} return"


def _set(name: str, kind: str, size: int) -> str:
    return f"add set {TABLE} {name} {{ type {kind}; size {size}; flags dynamic; }}"


def _count(name: str, ends: str) -> str:
    return f"update @{name} {{ meta l4proto . {ends} counter }}"


def read(items: Sequence[Mapping[str, Any]], generation: int) -> Reading:
    """What nft lists of this generation; what is in another form is left out. Pure."""
    reading, names = Reading(), set(set_names(generation))
    for item in items:
        content = item.get("set") or {}
        if content.get("name") in names:
            counts = reading.came if content["name"].startswith(CAME) else reading.went
            counts.update(_elements(content.get("elem") or ()))
    return reading


def _elements(elements: Sequence[Any]) -> Iterator[tuple[Ends, Count]]:
    for element in elements:
        match element:
            case {
                "elem": {"val": {"concat": ends}, "counter": {"packets": int(packets), "bytes": int(size)}}
            }:
                if len(ends) == PORTS_AND_ADDRESSES:
                    yield Ends(*ends), Count(packets, size)
                elif len(ends) == ADDRESSES:
                    yield Ends(ends[0], ends[1], 0, ends[2], 0), Count(packets, size)


class FlowTable:
    """The table of one interface; ``call`` is nft, here or elsewhere. Every method raises ``ClientError``."""

    def __init__(self, interface: str, *, call: Call = call_nft) -> None:
        self.is_open = False
        self._interface = interface
        self._call = call
        self._generation = 0
        self._alone = asyncio.Lock()

    async def open(self) -> None:
        """Count from now on; what was counted before is forgotten."""
        async with self._alone:
            self._generation = 0
            await self._run(REMOVED + counting(self._interface, 0))
            self.is_open = True

    async def take(self) -> Reading:
        """What has been counted since the last time."""
        async with self._alone:
            return await self._take() if self.is_open else Reading()

    async def close(self) -> None:
        """Count no more; also what a killed daemon left."""
        async with self._alone:
            self.is_open = False
            await self._run(REMOVED)

    async def _take(self) -> Reading:
        finished = self._generation
        await self._run(counting(self._interface, finished + 1))
        self._generation = finished + 1
        items = listed(await self._call(("-j", "-n", "list", "table", *TABLE.split()), b""))
        reading = await asyncio.to_thread(read, items, finished)
        present = {item["set"]["name"] for item in items if "set" in item}
        # Somebody may have flushed all tables meanwhile.
        old = [name for name in set_names(finished) if name in present]
        await self._run("".join(f"delete set {TABLE} {name}\n" for name in old))
        return reading

    async def _run(self, script: str) -> None:
        if script:
            await self._call(("-f", "-"), script.encode())
