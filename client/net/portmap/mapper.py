"""Keeps a port mapping: finds a way to one, renews it, and gives it back at the end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from client.net.portmap.gateway import find_gateway
from client.net.portmap.pcp import NONCE_BYTES
from client.net.portmap.ways import Address, Granted, NatPmp, Pcp, Upnp, Way
from wire.keys import NodePrivate

log = logging.getLogger(__name__)

LIFETIME = 7200  # seconds that are asked for (RFC 6886 §3.3)
MIN_RENEWAL = 30.0  # a router that grants less is asked no more often
MAX_RENEWAL = 900.0  # a router that restarted has forgotten the mapping, and nobody says so
RETRY_SECONDS = (60.0, 300.0, 900.0)  # after looks that found nothing; a change of network looks at once
RELEASE_SECONDS = 2.0
NONCE_DOMAIN = b"trenza port mapping "


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """Which protocols the router speaks; ``None`` = not looked for."""

    upnp: bool | None = None
    pmp: bool | None = None
    pcp: bool | None = None


class PortMapper:
    """``on_change`` is called when :attr:`external` has become another one."""

    def __init__(
        self,
        ways: Sequence[Way],
        *,
        on_change: Callable[[], None],
        gateway: Callable[[], Awaitable[str | None]] = find_gateway,
    ) -> None:
        self.external: Address | None = None
        self.offers = Offers()
        self._ways = ways
        self._on_change = on_change
        self._find_gateway = gateway
        self._gateway = ""
        self._way: Way | None = None
        self._until = float("-inf")
        self._failures = 0
        self._wanted = asyncio.Event()
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wanted.clear()
            pause = await self.step()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()

    def refresh(self) -> None:
        """The network, or our place in it, has changed: look again now."""
        self._failures = 0
        self._wanted.set()

    async def step(self) -> float:
        """Get or renew a mapping; returns the seconds until that is to be done again."""
        async with self._lock:
            granted = await self._renew() or await self._look()
            now = asyncio.get_running_loop().time()
            if granted is None:
                if now >= self._until:
                    self._way = None
                    self._set(None)
                self._failures += 1
                return RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS)) - 1]
            self._failures = 0
            self._until = now + granted.lifetime
            self._set(granted.external)
            return min(MAX_RENEWAL, max(MIN_RENEWAL, granted.lifetime / 2))

    async def look_for_all(self) -> Offers:
        """Which protocols the router speaks, whether or not they are needed; takes up to some seconds."""
        async with self._lock:
            gateway = await self._find_gateway()
            if gateway is None:
                self.offers = Offers(upnp=False, pmp=False, pcp=False)
            else:
                found = await asyncio.gather(*(way.is_offered(gateway) for way in self._ways))
                self._note({way.name: offered for way, offered in zip(self._ways, found, strict=True)})
            return self.offers

    async def release(self) -> None:
        """Give the mapping back, if the router answers soon."""
        way, gateway = self._way, self._gateway
        self._way = None
        if way is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELEASE_SECONDS):
                    await way.unmap(gateway)
        self.external = None

    async def _renew(self) -> Granted | None:
        """The mapping that there is, once more, unless we are behind another router now."""
        way, gateway = self._way, await self._find_gateway()
        if gateway != self._gateway:
            self._way, self._gateway, self.offers = None, gateway or "", Offers()
            self._set(None)
            return None
        if way is None or self.external is None:
            return None
        return await way.map(gateway, self.external[1], LIFETIME)

    async def _look(self) -> Granted | None:
        """A new mapping, by the first way that leads to one."""
        if not self._gateway:
            return None
        for way in self._ways:
            granted = await way.map(self._gateway, 0, LIFETIME)
            self._note({way.name: granted is not None})
            if granted is not None:
                self._way = way
                return granted
        return None

    def _note(self, found: dict[str, bool]) -> None:
        old = {"UPnP": self.offers.upnp, "NAT-PMP": self.offers.pmp, "PCP": self.offers.pcp}
        new = old | found
        self.offers = Offers(upnp=new["UPnP"], pmp=new["NAT-PMP"], pcp=new["PCP"])

    def _set(self, external: Address | None) -> None:
        if external != self.external:
            if external is None:
                log.info("no port is forwarded to us any more")
            else:
                log.info(
                    "the router forwards %s:%d to us (%s)", *external, self._way.name if self._way else ""
                )
            self.external = external
            self._on_change()


def make_mapper(port: int, mark: int, key: NodePrivate, on_change: Callable[[], None]) -> PortMapper:
    """For WireGuard's ``port``. By a digest of ``key`` a mapping is known as ours after a restart, too."""
    nonce = hashlib.blake2b(NONCE_DOMAIN + key.raw, digest_size=NONCE_BYTES).digest()
    ways = (Pcp(port=port, mark=mark, nonce=nonce), NatPmp(port=port, mark=mark), Upnp(port=port, mark=mark))
    return PortMapper(ways, on_change=on_change)
