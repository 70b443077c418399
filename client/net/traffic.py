"""What of this host's and of others' traffic goes where: the exit node used, subnets accepted and served."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from client.errors import SetupError
from client.net.exitroutes import ExitRoutes, Wish, local_routes
from client.net.forwarding import (
    NO_GATEWAY,
    Gateway,
    allow_forwarding,
    dropping_chains,
    gateway_of,
    is_forwarding,
)
from client.prefixes import EXIT_ROUTES, Network
from client.prefs import Prefs
from client.routing import accepted_subnets, exit_node, is_exit_node
from wire.netmap import NetMap

logger = logging.getLogger("trenzad.net")

DROPPED = (
    "another firewall of this host ({chains}) drops what is forwarded: have it accept what comes in and goes "
    "out by {interface}, for example with iptables -I FORWARD -i {interface} -j ACCEPT and the same with -o"
)


def wish_of(netmap: NetMap, prefs: Prefs) -> Wish:
    """What the preferences ask for, as far as the netmap (reduced by :mod:`client.routing`) allows. Pure."""
    chosen = exit_node(netmap, prefs)
    return Wish(
        exit=prefs.uses_exit_node,
        open=chosen is not None and is_exit_node(chosen) and not chosen.expired,
        allow_lan=prefs.exit_node_allow_lan,
        subnets=accepted_subnets(netmap),
        served=_served(prefs),
    )


def closed_wish(prefs: Prefs) -> Wish:
    """Everything blocked but the tailnet, or nothing asked for. Pure."""
    return Wish(exit=prefs.uses_exit_node, allow_lan=prefs.exit_node_allow_lan, served=_served(prefs))


def _served(prefs: Prefs) -> frozenset[Network]:
    networks = map(ipaddress.ip_network, prefs.advertise_routes)
    return frozenset(network for network in networks if network not in EXIT_ROUTES)


class Traffic:
    """This host's part of it. ``troubles``: what could not be set up, though the tunnel is up."""

    def __init__(
        self,
        interface: str,
        exits: ExitRoutes | None = None,
        allow: Callable[[Iterable[int]], None] = allow_forwarding,
        dropping: Callable[[str], Awaitable[list[str]]] = dropping_chains,
        forwards: Callable[[], bool] = is_forwarding,
    ) -> None:
        self._interface = interface
        self._exits = exits or ExitRoutes(interface)
        self._allow = allow
        self._dropping = dropping
        self._forwards = forwards
        self._gateway = NO_GATEWAY
        self._basis: object = None  # what the gateway was made of
        self._applied: tuple[Wish, int] | None = None
        self._forwarding_trouble = ""

    @property
    def troubles(self) -> list[str]:
        return [text for text in (self._exits.trouble, self._forwarding_trouble) if text]

    def link_changed(self) -> None:
        """The host's own networks may be others now."""
        self._basis = self._applied = None

    async def gateway(self, netmap: NetMap, prefs: Prefs) -> Gateway:
        """What this node serves by now; the kernel forwards from then on. Raises :class:`SetupError`."""
        basis = (prefs.advertise_routes, prefs.no_snat, netmap.node.routed_prefixes)
        if basis != self._basis:
            attached = await self._attached() if prefs.offers_exit_node else ()
            self._gateway = gateway_of(
                netmap.node, prefs.advertise_routes, masquerade=not prefs.no_snat, attached=attached
            )
            await self._forward(self._gateway)
            self._basis = basis
        if self._gateway.forwards != (forwards := self._forwards()):
            self._gateway = replace(self._gateway, forwards=forwards)
        return self._gateway

    async def guard(self, prefs: Prefs) -> None:
        """Before the tunnel is up: from now on nothing leaves beside an exit node that is wanted.

        What is there already goes on. Raises :class:`SetupError`.
        """
        if prefs.uses_exit_node:
            self._applied = None
            await self._exits.apply(closed_wish(prefs), add_only=True)

    async def follow(self, netmap: NetMap, prefs: Prefs, port: int) -> None:
        """The tunnel is up, WireGuard on UDP ``port``. Raises :class:`SetupError`."""
        wanted = (wish_of(netmap, prefs), port)
        if wanted != self._applied:
            self._applied = None
            await self._exits.apply(wanted[0], port=port)
            self._applied = wanted

    async def close(self, prefs: Prefs | None) -> None:
        """The tunnel is down: block what an exit node is wanted for; ``None``: let everything out again.

        Raises :class:`SetupError`.
        """
        self._basis, self._applied, self._forwarding_trouble = None, None, ""
        if prefs is not None and prefs.uses_exit_node:
            await self._exits.apply(closed_wish(prefs))
        else:
            await self._exits.remove()

    async def _forward(self, gateway: Gateway) -> None:
        self._forwarding_trouble = ""
        if not gateway.routes:
            return
        try:
            self._allow({route.version for route in gateway.routes})
            if chains := await self._dropping(self._interface):
                raise SetupError(DROPPED.format(chains=", ".join(chains), interface=self._interface))
        except SetupError as error:
            self._forwarding_trouble = str(error)
            logger.warning("%s", error)

    async def _attached(self) -> list[Network]:
        try:
            async with AsyncIPRoute() as netlink:
                found = await netlink.link_lookup(ifname=self._interface)
                routes = await local_routes(netlink, tunnel=int(found[0]) if found else None)
        except (NetlinkError, OSError) as error:
            raise SetupError(f"cannot read this host's routes: {error}") from error
        return [route.to for route in routes if route.attached]
