"""Drives the tunnel, and what stands on it, towards the newest netmap: up, following, down; PeerAPI and DNS.

What is wanted follows from the node's facts (:func:`client.state.duties`). One change comes after another,
what fails is tried again, and a tunnel that died beneath us is buried and made anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from client.control.dial import Backoff
from client.dns.service import Dns, wanted_dns
from client.errors import ClientError
from client.magicsock.endpoints import Endpoint
from client.netmaps import Netmaps
from client.peerapi.api import PeerAPI
from client.prefixes import tailnet_addresses
from client.prefs import Prefs
from client.state import Facts, State, duties, state_of
from client.store import Store
from client.troubles import Troubles
from client.tunnel import Keys, Ports, Tunnel, wants_random_port
from client.wayout import Reduction, guarding
from wire.control import NetInfo, Service
from wire.keys import DiscoPrivate, NodePrivate
from wire.netmap import NetMap

logger = logging.getLogger("trenzad")

SETTLE_SECONDS = 20.0
MakeTunnel = Callable[[Callable[[tuple[Endpoint, ...]], None], Callable[[NetInfo], None]], Tunnel]


class Owner(Protocol):
    """The node whose tunnel this is."""

    is_connected: bool
    disco_key: DiscoPrivate
    peerapi: PeerAPI | None
    dns: Dns | None

    @property
    def facts(self) -> Facts: ...

    @property
    def control_url(self) -> str: ...

    def announce(self, error: ClientError | None = None) -> None: ...


class Follower:
    """``port`` is WireGuard's as asked for, 0 = any; ``on_news``: the server has to be told something new.

    That is in :attr:`endpoints`, :attr:`net_info` and :attr:`services`.
    """

    def __init__(
        self,
        owner: Owner,
        *,
        store: Store,
        netmaps: Netmaps,
        troubles: Troubles,
        make_tunnel: MakeTunnel,
        port: int,
        on_news: Callable[[], None],
    ) -> None:
        self.tunnel = make_tunnel(self._on_endpoints, self._on_net_info)
        self.endpoints: tuple[Endpoint, ...] = ()
        self.net_info: NetInfo | None = None
        self.services: tuple[Service, ...] = ()
        self._owner = owner
        self._store = store
        self._netmaps = netmaps
        self._troubles = troubles
        self._asked_port = port
        self._on_news = on_news
        self._reduction = Reduction()  # of the netmap in force, to what the tunnel is given
        self._may_be_left = True  # a killed daemon's tunnel
        self._may_be_dead = False
        self._has_random_port = False
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()

    # --- being told --------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something has changed that may be followed."""
        self._changed.set()

    async def settle(self) -> None:
        """Return once everything is as decided; raises ``TimeoutError``."""
        self._settled.clear()
        self._changed.set()
        async with asyncio.timeout(SETTLE_SECONDS):
            await self._settled.wait()

    def link_changed(self) -> None:
        """The host's network changed."""
        if self.tunnel.is_up:
            self.tunnel.link_changed()
            self._may_be_dead = True
            self._changed.set()

    def _on_endpoints(self, endpoints: tuple[Endpoint, ...]) -> None:
        if endpoints != self.endpoints:
            self.endpoints = endpoints
            self._on_news()

    def _on_net_info(self, net_info: NetInfo) -> None:
        if net_info != self.net_info:
            self.net_info = net_info
            self._on_news()

    @property
    def home_region(self) -> int:
        """The relay region of ours; 0 = none known."""
        return self.net_info.preferred_derp if self.net_info else 0

    @property
    def guarding(self) -> Prefs | None:
        """What is blocked while there is no tunnel: see :func:`client.wayout.guarding`."""
        return guarding(self._store.prefs, has_key=self._store.identity.node is not None)

    # --- following ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """One change after another, always towards the newest netmap; until cancelled."""
        backoff = Backoff()
        while True:
            self._changed.clear()
            if await self._try():
                backoff.reset()
                self._troubles.over("tunnel")
                if not self._changed.is_set():
                    self._settled.set()
                await self._changed.wait()
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.next()):
                        await self._changed.wait()

    async def _try(self) -> bool:
        try:
            await self._follow_netmap()
            await self._open_to_peers()
            await self._follow_dns()
        except ClientError as error:
            self._troubles.say("tunnel", f"no tunnel: {error}")
            self._owner.announce(error)
            return False
        except Exception:  # the daemon outlives its bugs: logged, and tried again
            logger.exception("the tunnel failed")
            self._troubles.keep("tunnel", "no tunnel: trenzad failed, see its log")
            self._owner.announce()
            return False
        return True

    async def _follow_netmap(self) -> None:
        netmap, node = self._netmaps.in_force(), self._store.identity.node
        if not duties(self._owner.facts).tunnel or netmap is None or node is None:
            await self._take_down()
            return await self.tunnel.guard(self.guarding)
        await self._bury_if_dead()
        prefs = self._store.prefs
        netmap = self._reduction.of(netmap, prefs)
        if self.tunnel.is_up and self._has_random_port != wants_random_port(netmap):
            logger.info("the policy changed how WireGuard's port is chosen: the tunnel is made anew")
            await self._bury()
        if self.tunnel.is_up:
            return await self.tunnel.apply(netmap, node, prefs=prefs)
        return await self._bring_up(netmap, node, prefs)

    async def _bring_up(self, netmap: NetMap, node: NodePrivate, prefs: Prefs) -> None:
        keys = Keys(node=node, disco=self._owner.disco_key)
        is_random = wants_random_port(netmap)
        ports = Ports(asked=self._asked_port, kept=self._store.identity.listen_port, random=is_random)
        await self.tunnel.up(netmap, keys, ports=ports, prefs=prefs)
        self._may_be_left, self._has_random_port = False, is_random
        if not is_random:
            self._store.set_identity(listen_port=self.tunnel.listen_port)
        if self.tunnel.sock is not None:
            self.tunnel.sock.set_connected(self._owner.is_connected)
            self.tunnel.sock.set_control_url(self._owner.control_url)
        self._owner.announce()

    async def _open_to_peers(self) -> None:
        """The PeerAPI listens where the tunnel is; the filter lets peers in there, the server tells them."""
        api = self._owner.peerapi
        if api is None:
            return
        netmap = self._netmaps.in_force() if self.tunnel.is_up else None
        await api.serve_on(tailnet_addresses(netmap.node.addresses) if netmap else ())
        await self.tunnel.open_doors(api.doors)
        services = api.services()
        if services != self.services:
            self.services = services
            self._on_news()

    async def _follow_dns(self) -> None:
        netmap, dns = self._netmaps.in_force(), self._owner.dns
        if dns is not None and self.tunnel.is_up and netmap is not None:
            await dns.follow(wanted_dns(netmap, self._store.prefs, self._owner.control_url))

    # --- taking down -------------------------------------------------------------------------------------

    async def stop_dns(self) -> None:
        """Before the tunnel goes: programs must not ask where nobody is. Also what a killed daemon left."""
        try:
            if self._owner.dns is not None:
                await self._owner.dns.stop()
            self._troubles.over("dns")
        except ClientError as error:
            self._troubles.say("dns", str(error))

    async def _stop_peerapi(self) -> None:
        if self._owner.peerapi is not None:
            await self._owner.peerapi.serve_on(())

    async def _bury_if_dead(self) -> None:
        """A tunnel whose WireGuard was killed or removed is taken down, to be made anew."""
        if self._may_be_dead and self.tunnel.is_up and not await self.tunnel.is_alive():
            logger.warning("the tunnel's interface is gone; making it anew")
            await self._bury()
        self._may_be_dead = False

    async def _bury(self) -> None:
        await self._stop_peerapi()  # its listeners may have been in a network that is gone, too
        await self.tunnel.down(keep=False, guarding=self.guarding)

    async def _take_down(self) -> None:
        """Also what a killed daemon left, unless that may be taken over once the server has spoken."""
        starting = state_of(self._owner.facts) is State.STARTING
        if self.tunnel.is_up or (self._may_be_left and not starting):
            await self.stop_dns()
            await self.tunnel.down(keep=False, guarding=self.guarding)
            self._may_be_left = False
            self.endpoints, self.net_info = (), None
            self._owner.announce()

    async def close(self) -> None:
        """After :meth:`run`: nothing is left, also of a killed daemon's, and nothing stays blocked."""
        await self._stop_peerapi()
        await self.stop_dns()
        if self.tunnel.is_up or self._may_be_left:
            await self.tunnel.down(keep=False)
        await self.tunnel.guard(None)
