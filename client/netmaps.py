"""The node's network map as it is kept: the newest one in memory, in force as keys run out, and on disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from client.errors import ClientError
from client.memory import give_back
from client.state import is_expired, next_expiry, without_expired
from client.store import Store
from client.troubles import Troubles
from wire.delta import apply
from wire.netmap import MapResponse, NetMap

logger = logging.getLogger("trenzad")

SAVE_PAUSE_SECONDS = 0.2  # what a killed daemon may not have kept: at its return it would drop newer peers
MANY_PEERS = 200  # a netmap of this many takes memory worth giving back
SAVED_PEERS_PER_SECOND = 400  # a large netmap is written less often: about 1 % of a core
MAX_TIMER_SECONDS = 24 * 3600.0


class Netmaps:
    """``now`` is the server's time; ``on_expiry`` is called when a key has run out."""

    def __init__(
        self,
        store: Store,
        *,
        now: Callable[[], datetime],
        troubles: Troubles,
        on_expiry: Callable[[], None],
    ) -> None:
        self.newest: NetMap | None = None
        self._store = store
        self._now = now
        self._troubles = troubles
        self._on_expiry = on_expiry
        self._shown: NetMap | None = None  # the one in force
        self._fresh_stream = True
        self._timer: asyncio.TimerHandle | None = None
        self._save = asyncio.Event()
        self._saving = asyncio.Lock()

    @property
    def is_own_key_expired(self) -> bool:
        return self.newest is not None and is_expired(self.newest, self._now())

    def in_force(self) -> NetMap | None:
        """The newest one as it is by now; the same object while nothing changes."""
        if self.newest is None:
            return None
        seen = without_expired(self.newest, self._now())
        if self._shown is None or seen != self._shown:
            self._shown = seen
        return self._shown

    # --- the newest --------------------------------------------------------------------------------------

    def load(self) -> NetMap | None:
        """Begin with that of the last run, if there is one."""
        self.newest = self._store.load_netmap()
        if self.newest is not None:
            logger.info("starting with the network map of the last run")
            self._describe_account(self.newest)
        self._plan_expiry()
        return self.newest

    def begin_stream(self) -> None:
        """The next message stands for itself."""
        self._fresh_stream = True

    def take(self, message: MapResponse) -> NetMap:
        """The newest one by a message, taken whole or not at all; raises ``MessageError``."""
        self.newest = apply(None if self._fresh_stream else self.newest, message, self._now())
        self._fresh_stream = False
        self._describe_account(self.newest)
        self._plan_expiry()
        self._save.set()
        return self.newest

    def forget(self) -> None:
        """There is none any more in memory; the next message stands for itself."""
        self.newest = self._shown = None
        self._fresh_stream = True
        self._plan_expiry()

    def _describe_account(self, netmap: NetMap) -> None:
        """For the list of accounts; should the disk be full, that is all it lacks."""
        try:
            self._store.describe_profile(netmap)
        except ClientError as error:
            logger.info("%s", error)

    # --- time --------------------------------------------------------------------------------------------

    def _plan_expiry(self) -> None:
        """Look at everything again when the next key runs out."""
        self.end_timer()
        left = next_expiry(self.newest, self._now()) if self.newest is not None else None
        if left is not None:
            seconds = min(left.total_seconds() + 1, MAX_TIMER_SECONDS)
            self._timer = asyncio.get_running_loop().call_later(seconds, self.expiry_due)

    def expiry_due(self) -> None:
        """A key has run out, or may have: the host slept, say."""
        self._on_expiry()
        self._plan_expiry()

    def end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- on disk -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write what is new; until cancelled."""
        while True:
            await self._save.wait()
            self._save.clear()
            async with self._saving:  # not while the account changes
                netmap = self.newest
                await self._write(netmap)
            peers = len(netmap.peers) if netmap is not None else 0
            await asyncio.sleep(SAVE_PAUSE_SECONDS + peers / SAVED_PEERS_PER_SECOND)
            if peers >= MANY_PEERS:  # by now the tunnel has followed, too
                give_back()

    async def _write(self, netmap: NetMap | None) -> None:
        if netmap is not None:
            try:
                await asyncio.to_thread(self._store.save_netmap, netmap)
                self._troubles.over("save")
            except ClientError as error:
                self._troubles.say("save", str(error))

    def save_soon(self) -> None:
        """The node key has changed: the netmap on disk is bound to the old one."""
        self._save.set()

    def save(self) -> None:
        """Write it now, if it is a node's; raises ``ClientError``."""
        if self.newest is not None and self._store.identity.node is not None:
            self._store.save_netmap(self.newest)

    async def leave_account(self, change: Callable[[], None]) -> None:
        """Save; have ``change`` put another account into the store; forget. Raises what ``change`` raises."""
        async with self._saving:
            self.save()
            change()
        self.forget()
