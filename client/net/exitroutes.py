"""Policy routing: what of this host's traffic goes into the tunnel, and what goes nowhere else.

A table of our own holds the ways into the tunnel; rules send everything there first but the daemon's own
marked packets. While an exit node is wanted an ``unreachable`` default stands under all of it, bound to no
interface: should WireGuard die and its routes vanish with it, nothing leaves in clear (the kill switch).

Routes to the tailnet's peers stand in the main table (:mod:`client.net.router`). Between accepted subnets and
the host's own networks the longest prefix wins, and of two equal ones the host's: it is thrown back to main.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Set
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from client.errors import SetupError
from client.net.marks import MARK, MARK_MASK
from client.net.returnmarks import ReturnMarks
from client.prefixes import EXIT_ROUTES, TAILNET_RANGES, Network

TABLE = 7052
RT_TABLE_MAIN = 254
RTPROT_STATIC = 4
LAST_METRIC = 4294967295
IPV6_METRIC = 1024  # what the kernel gives to a route without one
ACTION_TABLE, ACTION_UNREACHABLE = 1, 7
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
NO_IPV6 = {errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EACCES}  # switched off on this host
LINK_LOCAL = ipaddress.ip_network(
    "fe80::/10"
)  # of one link by nature: stands in main, and goes through no tunnel
MULTICAST = ipaddress.ip_network("224.0.0.0/4")


class Way(IntEnum):
    """Kinds of routes, by the kernel's numbers (linux/rtnetlink.h)."""

    TUNNEL = 1
    NOWHERE = 7  # unreachable
    MAIN = 9  # throw: as if the table had said nothing


WAYS = frozenset(Way)


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the table."""

    to: Network
    way: Way

    @property
    def metric(self) -> int:
        if self.way is Way.NOWHERE:
            return LAST_METRIC
        return IPV6_METRIC if self.to.version == 6 else 0


@dataclass(frozen=True, slots=True)
class LocalRoute:
    """A route of the host's own. ``attached``: straight to a link, without a router between."""

    to: Network
    attached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """``exit``: everything goes into the tunnel or nowhere; ``open``: there is somebody at its other end.

    ``subnets`` are accepted from peers, ``served`` offered by this node itself.
    """

    exit: bool = False
    open: bool = False
    allow_lan: bool = False
    subnets: frozenset[Network] = frozenset()
    served: frozenset[Network] = frozenset()


NO_WISH = Wish()


def plan(wish: Wish, local: Iterable[LocalRoute]) -> frozenset[Route]:
    """What the table ought to hold; nothing = no rules either. Pure."""
    if not (wish.exit or wish.subnets):
        return frozenset()
    ways = dict.fromkeys(wish.subnets, Way.TUNNEL)
    if wish.exit:
        ways |= dict.fromkeys(TAILNET_RANGES, Way.TUNNEL)  # no address of a tailnet's leaves by another way
        ways |= {LINK_LOCAL: Way.MAIN}
    if wish.exit and wish.open:
        ways |= dict.fromkeys(EXIT_ROUTES, Way.TUNNEL)
    ways |= dict.fromkeys(_kept(wish, local), Way.MAIN)
    routes = {Route(network, way) for network, way in ways.items()}
    if wish.exit:
        routes |= {Route(network, Way.NOWHERE) for network in EXIT_ROUTES}
    return frozenset(routes)


def _kept(wish: Wish, local: Iterable[LocalRoute]) -> Iterator[Network]:
    """The networks that are the host's own business."""
    yield from (network for network in wish.served if network not in EXIT_ROUTES)
    if wish.exit and not wish.allow_lan:
        return
    if wish.exit:
        yield MULTICAST
    for route in local:
        if route.to.prefixlen == 0 or any(_inside(route.to, whole) for whole in TAILNET_RANGES):
            continue
        if (wish.exit and route.attached) or any(_inside(route.to, subnet) for subnet in wish.subnets):
            yield route.to


def _inside(network: Network, whole: Network) -> bool:
    return network.version == whole.version and network.subnet_of(whole)  # type: ignore[arg-type]


def rules(family: int) -> list[dict[str, Any]]:
    """The rules, in order, as netlink takes them. Pure."""
    marked = {"family": family, "fwmark": MARK, "fwmask": MARK_MASK}
    return [
        marked | {"priority": 5210, "action": ACTION_TABLE, "table": RT_TABLE_MAIN},
        marked | {"priority": 5230, "action": ACTION_UNREACHABLE},
        {"family": family, "priority": 5270, "action": ACTION_TABLE, "table": TABLE},
    ]


async def local_routes(netlink: Any, *, tunnel: int | None) -> list[LocalRoute]:
    """The main table's routes but those into the tunnel."""
    found = []
    for family in FAMILIES.values():
        async for item in await netlink.get_routes(family=family, table=RT_TABLE_MAIN):
            network = _destination(item, family)
            is_other = item["type"] == Way.TUNNEL and item.get_attr("RTA_OIF") != tunnel
            if is_other and network.prefixlen and not network.is_link_local:
                found.append(LocalRoute(network, attached=item.get_attr("RTA_GATEWAY") is None))
    return found


def _destination(item: Any, family: int) -> Network:
    default = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104 - a destination, nothing is bound
    return ipaddress.ip_network((item.get_attr("RTA_DST") or default, item["dst_len"]))


class ExitRoutes:
    """The rules and the table on this host (in this network namespace), reconciled with what is wanted.

    Nothing is remembered: whatever an earlier daemon left is found in the kernel.
    """

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._marks = ReturnMarks(interface)
        self._clean = False  # known to have left nothing

    @property
    def trouble(self) -> str:
        """What could not be set and may cost something; "" when all is well."""
        return self._marks.trouble

    async def apply(self, wish: Wish, *, port: int = 0, add_only: bool = False) -> None:
        """Make it so; ``port`` is WireGuard's own, 0 = not known yet. Raises :class:`SetupError`.

        What closes comes before what opens; with ``add_only`` what is open already stays so.
        """
        try:
            async with AsyncIPRoute() as netlink:
                index = await self._index(netlink)
                wanted = plan(wish, await local_routes(netlink, tunnel=index))
                if wanted:
                    self._clean = False
                    await self._marks.apply(port)
                    await self._set_routes(netlink, index, wanted, add_only=add_only)
                    await self._set_rules(netlink, wanted=True)
                elif not self._clean:
                    await self._set_rules(netlink, wanted=False)
                    await self._set_routes(netlink, index, wanted)
                    await self._marks.remove()
                    self._clean = True
        except (NetlinkError, OSError) as error:
            raise SetupError(f"cannot set this host's routes: {error}") from error

    async def remove(self) -> None:
        """Leave nothing, whoever made it. Raises :class:`SetupError`."""
        await self.apply(NO_WISH)

    async def _index(self, netlink: Any) -> int | None:
        found = await netlink.link_lookup(ifname=self._interface)
        return int(found[0]) if found else None

    async def _set_rules(self, netlink: Any, *, wanted: bool) -> None:
        for version, family in FAMILIES.items():
            present = [_rule_key(item) async for item in await netlink.get_rules(family=family)]
            for rule in rules(family):
                is_there = _key_of(rule) in present
                if is_there != wanted:
                    await _unless_off(netlink.rule("add" if wanted else "del", **rule), version)

    async def _set_routes(
        self, netlink: Any, index: int | None, wanted: frozenset[Route], *, add_only: bool = False
    ) -> None:
        """Without the interface only what needs none can be set."""
        usable = {route for route in wanted if index is not None or route.way is not Way.TUNNEL}
        present = {route async for route in self._routes(netlink)}
        if add_only:
            taken = {(route.to, route.metric) for route in present}
            usable = present | {route for route in usable if (route.to, route.metric) not in taken}
        for verb, route in _steps(present, usable):
            await _unless_off(netlink.route(verb, **_spec(route, index)), route.to.version)

    async def _routes(self, netlink: Any) -> AsyncIterator[Route]:
        for family in FAMILIES.values():
            async for item in await netlink.get_routes(family=family, table=TABLE):
                if item["type"] in WAYS:
                    yield Route(_destination(item, family), Way(item["type"]))


def _steps(present: Set[Route], wanted: Set[Route]) -> Iterator[tuple[str, Route]]:
    """From one table to another. The kill switch is there first and goes last.

    The rest is removed before it is added: to IPv6 two routes of one prefix and metric are the same, of
    whatever kind they are.
    """
    coming, going = wanted - present, present - wanted
    yield from (("add", route) for route in coming if route.way is Way.NOWHERE)
    yield from (("del", route) for route in going if route.way is not Way.NOWHERE)
    yield from (("add", route) for route in coming if route.way is not Way.NOWHERE)
    yield from (("del", route) for route in going if route.way is Way.NOWHERE)


def _spec(route: Route, index: int | None) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "family": FAMILIES[route.to.version],
        "dst": str(route.to),
        "type": int(route.way),
        "table": TABLE,
        "proto": RTPROT_STATIC,
    }
    if route.metric:
        spec["priority"] = route.metric
    if route.way is Way.TUNNEL and index is not None:
        spec["oif"] = index
    return spec


def _key_of(rule: dict[str, Any]) -> tuple[Any, ...]:
    return rule["priority"], rule["action"], rule.get("table", 0), rule.get("fwmark"), rule.get("fwmask")


def _rule_key(item: Any) -> tuple[Any, ...]:
    names = ("FRA_PRIORITY", "FRA_TABLE", "FRA_FWMARK", "FRA_FWMASK")
    priority, table, mark, mask = map(item.get_attr, names)
    return priority, item["action"], table or 0, mark, mask


async def _unless_off(change: Any, version: int) -> None:
    """Carry out a change; where the host has IPv6 switched off there is nothing to be done, nor to leak."""
    try:
        await change
    except NetlinkError as error:
        if version == 4 or error.code not in NO_IPV6:
            raise
