"""``/ws/panel/TAILNET``: tells an open page what has changed, as ``{type, id, version}`` and nothing more.

The page fetches the changed fragment again by HTTP, where scope and permissions are checked. While pages are
open, one watcher in this process also compares the database once a second: that finds changes made by
commands and other hosts' processes, lost messages, and relays' reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import urlsplit

from channels.auth import AuthMiddlewareStack
from channels.consumer import AsyncConsumer
from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from channels.layers import get_channel_layer
from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.db import DatabaseError
from django.db.models import Max, Q
from django.urls import path, re_path

from accounts.middleware import SESSION_KEY, choose_membership
from accounts.models import Membership, Tailnet
from accounts.roles import Capability, can
from accounts.services.people import note_seen
from accounts.tenancy import memberships_of, scope
from controlplane.models import Relay
from nodes.models import Presence

logger = logging.getLogger("trenza.panel")

SIGNED_OUT = 4401
OTHER_TAILNET = 4409
TOO_MANY = 4429
PING_SECONDS = 20.0
WATCH_SECONDS = 1.0
GAP_SECONDS = 0.1  # a message may be on its way still
MAX_SOCKETS = 5000
# What the page of somebody who sees only their own devices is told: that something changed, not what.
BLUNT = "tailnet"
# Changes at every moment in a large tailnet: those who are told bluntly look by themselves, now and then.
FREQUENT = "path"


@dataclass(slots=True)
class Room:
    """The open pages of one tailnet here, and what they were told last."""

    sockets: set[PanelConsumer] = field(default_factory=set)
    version: int = 0
    online: frozenset[int] | None = None
    relays_seen: datetime | None = None


class Watcher:
    """Looks at the database while pages are open; one for each event loop of the process."""

    def __init__(self) -> None:
        self.rooms: dict[int, Room] = defaultdict(Room)
        self._task: asyncio.Task[None] | None = None

    def join(self, socket: PanelConsumer, tailnet: Tailnet) -> bool:
        """Count a page in; ``False`` when there are too many."""
        if sum(len(room.sockets) for room in self.rooms.values()) >= MAX_SOCKETS:
            return False
        room = self.rooms[tailnet.pk]
        room.sockets.add(socket)
        room.version = max(room.version, tailnet.netmap_version)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        return True

    def leave(self, socket: PanelConsumer, tailnet_id: int) -> None:
        room = self.rooms.get(tailnet_id)
        if room is None:
            return
        room.sockets.discard(socket)
        if not room.sockets:
            del self.rooms[tailnet_id]

    async def _run(self) -> None:
        while self.rooms:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self._look()
            except DatabaseError as error:
                logger.warning("cannot look for changes: %s; trying again", error)

    async def _look(self) -> None:
        ids = list(self.rooms)
        versions, online, relays_seen = await _read(ids)
        if any(room.version < versions.get(pk, 0) for pk, room in self.rooms.items()):
            await asyncio.sleep(GAP_SECONDS)
        for pk, room in list(self.rooms.items()):
            version = versions.get(pk)
            if version is None or version > room.version:  # messages were lost; or the tailnet is no more
                await self._look_again(room)
            if version is not None and version > room.version:
                room.version = version
                await self._tell(room, {"type": "tailnet", "id": pk, "version": version})
            if pk in online:
                await self._tell_online(room, online[pk])
            seen = max(filter(None, (relays_seen.get(None), relays_seen.get(pk))), default=None)
            if seen is not None and seen != room.relays_seen:
                if room.relays_seen is not None:
                    moment = int(seen.timestamp() * 1000)
                    await self._tell(room, {"type": "relay", "id": 0, "version": moment})
                room.relays_seen = seen

    async def _tell_online(self, room: Room, online: frozenset[int]) -> None:
        for node_id in sorted(online ^ room.online) if room.online is not None else ():
            await self._tell(room, {"type": "node", "id": node_id, "version": room.version})
        room.online = online

    async def _look_again(self, room: Room) -> None:
        for socket in list(room.sockets):
            await socket.look_again()

    async def _tell(self, room: Room, message: dict[str, Any]) -> None:
        for socket in list(room.sockets):
            await socket.tell(message)


@database_sync_to_async  # type: ignore[untyped-decorator]
def _read(
    ids: list[int],
) -> tuple[dict[int, int], dict[int, frozenset[int]], dict[int | None, datetime | None]]:
    """Of these tailnets the versions and who is online; and when relays (``None`` = everybody's) reported."""
    now = datetime.now(UTC)
    versions = dict(Tailnet.objects.filter(pk__in=ids).values_list("pk", "netmap_version"))
    online = {}
    for pk in versions:
        with scope(tailnet=pk):
            held = Presence.objects.filter(expires__gt=now).values_list("node_id", flat=True)
            online[pk] = frozenset(held)
    relays = Relay.objects.filter(Q(tailnet=None) | Q(tailnet__in=ids)).values_list("tailnet")
    return versions, online, dict(relays.annotate(last=Max("last_seen")))


_watchers: dict[int, Watcher] = {}


def watcher() -> Watcher:
    """This event loop's watcher."""
    return _watchers.setdefault(id(asyncio.get_running_loop()), Watcher())


class PanelConsumer(AsyncConsumer):  # type: ignore[misc]
    """One open page."""

    membership: Membership | None = None
    pinger: asyncio.Task[None] | None = None
    open = False

    async def websocket_connect(self, message: dict[str, Any]) -> None:
        await self.send({"type": "websocket.accept"})
        wanted = self.scope["url_route"]["kwargs"]["tailnet_id"]
        found = await self._current()
        if found is None:
            await self._close(SIGNED_OUT)
        elif found.tailnet_id != wanted:
            await self._close(OTHER_TAILNET)
        elif not watcher().join(self, found.tailnet):
            await self._close(TOO_MANY)
        else:
            await self._begin(found)

    async def _begin(self, membership: Membership) -> None:
        self.membership, self.open = membership, True
        tailnet = membership.tailnet
        await get_channel_layer().group_add(f"panel.{tailnet.pk}", self.channel_name)
        await self._send({"type": "hello", "version": tailnet.netmap_version})
        self.pinger = asyncio.get_running_loop().create_task(self._ping(f"panel.{tailnet.pk}"))

    @database_sync_to_async  # type: ignore[untyped-decorator]
    def _current(self) -> Membership | None:
        """The active membership of the session's current tailnet, read anew; ``None`` once signed out."""
        user, session = self.scope.get("user"), self.scope.get("session")
        if user is None or not user.is_authenticated or not user.is_active or session is None:
            return None
        if not session.exists(session.session_key):
            return None
        found = choose_membership(memberships_of(user.pk), session.get(SESSION_KEY))
        if found is None or not found.is_active:
            return None
        note_seen(membership=found)
        return found

    async def _ping(self, group: str) -> None:
        """So that the page notices a dead connection, and renew the group (channel layers forget).

        Whoever has signed out meanwhile, here or on another page, is told no more.
        """
        while True:
            await asyncio.sleep(PING_SECONDS)
            if await self._current() is None:
                self.pinger = None  # this very task: the end must not cancel it
                await self._shut(SIGNED_OUT)
                return
            await get_channel_layer().group_add(group, self.channel_name)
            await self._send({"type": "ping"})

    async def panel_change(self, message: dict[str, Any]) -> None:
        """A service has committed a change of this tailnet."""
        if not self.open or self.membership is None or message["tailnet"] != self.membership.tailnet_id:
            return
        room = watcher().rooms.get(self.membership.tailnet_id)
        if room is not None:
            room.version = max(room.version, int(message["version"]))
        changes = message["changes"]
        if any(change["type"] == "membership" or change["op"] == "delete" for change in changes):
            await self.look_again()
        for change in changes:
            await self.tell(change)

    async def look_again(self) -> None:
        """Read the membership anew; a page whose reader has none here any more is shut out."""
        if not self.open or self.membership is None:
            return
        found = await self._current()
        if found is None or found.tailnet_id != self.membership.tailnet_id:
            await self._shut(SIGNED_OUT)
        else:
            self.membership = found

    async def tell(self, change: dict[str, Any]) -> None:
        """Send one change to the page, as bluntly as its reader's role demands."""
        if not self.open or self.membership is None:
            return
        if change["type"] not in (BLUNT, "relay") and not can(self.membership, Capability.SEE_ALL):
            if change["type"] == FREQUENT:
                return
            change = {"type": BLUNT, "id": self.membership.tailnet_id, "version": change["version"]}
        await self._send({name: change[name] for name in ("type", "id", "version")})

    async def websocket_receive(self, message: dict[str, Any]) -> None:
        """Pages have nothing to say."""

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        await self._end()
        raise StopConsumer

    async def _end(self) -> None:
        self.open = False
        if self.pinger is not None:
            self.pinger.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.pinger
            self.pinger = None
        if self.membership is not None:
            watcher().leave(self, self.membership.tailnet_id)
            await get_channel_layer().group_discard(f"panel.{self.membership.tailnet_id}", self.channel_name)

    async def _send(self, content: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # it may have gone while we were looking
            await self.send({"type": "websocket.send", "text": json.dumps(content)})

    async def _shut(self, code: int) -> None:
        await self._end()
        with contextlib.suppress(OSError, RuntimeError):
            await self.send({"type": "websocket.close", "code": code})

    async def _close(self, code: int) -> NoReturn:
        await self._shut(code)
        raise StopConsumer


def same_origin(application: Any) -> Any:
    """ASGI middleware: only pages of this very host, or of ``TRENZA_URL``, may open a socket.

    Cookies come along with any site's sockets, so the browser's ``Origin`` is what keeps other sites out.
    """

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"").decode("latin-1")
        host = headers.get(b"host", b"").decode("latin-1")
        if origin == settings.BASE_URL or (host and urlsplit(origin).netloc == host):
            await application(scope, receive, send)
        else:
            await WebsocketDenier()(scope, receive, send)

    return checked


PANEL_SOCKETS = [
    path("ws/panel/<int:tailnet_id>", same_origin(AuthMiddlewareStack(PanelConsumer.as_asgi()))),
    re_path("", WebsocketDenier.as_asgi()),  # any other address: refused at the handshake
]
