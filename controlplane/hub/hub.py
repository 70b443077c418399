"""The hub itself: what it is made of, what runs in it, and what the control protocol asks of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from controlplane.background import Tasks
from controlplane.hub.asking import Asker, ask
from controlplane.hub.audience import MapStream, Subscriber, next_keepalive
from controlplane.hub.clockwork import Clockwork
from controlplane.hub.database import Database
from controlplane.hub.layer import Layer
from controlplane.hub.nodekeys import NodeKeys
from controlplane.hub.pushing import Workshop
from controlplane.hub.room import Room, Shared
from controlplane.hub.rooms import Rooms
from controlplane.netmap.incarnations import Seen
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot
from controlplane.relaykeys import RelayKeys
from nodes.hostinfo import hostname
from wire.codec import encode_json


class Hub:
    """One per web worker. All methods run on the server's loop."""

    def __init__(self, database: Database, layer: Layer) -> None:
        self.layer = layer
        self.tasks = Tasks()
        self.workshop = Workshop()
        self.rooms = Rooms(Shared(self.tasks, database, layer, self.workshop, NodeKeys()))
        self.clockwork = Clockwork(self.rooms, database, layer)
        self.relay_keys = RelayKeys()
        self.asker: Asker | None = None  # the control protocol's part

    # -- life

    async def start(self) -> None:
        await self.layer.open()
        relay_keys = (self.relay_keys.follow_messages, self.relay_keys.check_versions)
        for step in (self._listen, *self.clockwork.rounds, *relay_keys):
            self.tasks.repeat(step)

    async def stop(self) -> None:
        await self.tasks.stop()
        for room in self.rooms:
            await room.unwritten.write()
        self.workshop.close()

    async def _listen(self) -> None:
        """Take one message of the channel layer."""
        message = await self.layer.receive()
        room = self.rooms.get(message.get("tailnet", 0))
        if room is None:
            return
        if message["type"] == "netmap.change":
            room.refresher.hear(message)
        elif message["type"] == "netmap.volatile" and message["worker"] != self.layer.worker:
            room.facts.hear(message)
        elif message["type"] == "netmap.ask" and message["node"] in room.audience.subscribers:
            node = room.snapshot.nodes[message["node"]]
            self.tasks.spawn(ask(self.asker, node, message, self.layer))

    # -- tailnets and nodes

    async def room(self, tailnet_id: int) -> Room | None:
        """The tailnet's room, loaded when it is not there yet; ``None`` when the tailnet is gone."""
        return await self.rooms.open(tailnet_id)

    async def learn(self, tailnet_id: int, node_id: int, node_key: str) -> bool:
        """Make sure that the tailnet's room knows a node by this key; ``False`` when it is gone.

        A node that has just joined (or changed its key) may ask before the message of that change is here.
        """
        room = await self.room(tailnet_id)
        if room is None:
            return False
        node = room.snapshot.nodes.get(node_id)
        if node is None or node.node_key != node_key:
            await room.refresher.learn(node_id)
        return node_id in room.snapshot.nodes

    def snapshot_of(self, tailnet_id: int) -> TailnetSnapshot | None:
        """The newest snapshot of a tailnet that has streams here; may be asked for in any thread."""
        room = self.rooms.get(tailnet_id)
        return room.snapshot if room is not None else None

    def find_by_key(self, node_key: str) -> NodeSnapshot | None:
        """A node of a loaded tailnet by its key; ``None`` says nothing about tailnets that are not loaded."""
        return self.rooms.find_by_key(node_key)

    def tailnet_of_key(self, node_key: str) -> int | None:
        return self.rooms.tailnet_of_key(node_key)

    def _node(self, tailnet_id: int, node_id: int) -> NodeSnapshot | None:
        room = self.rooms.get(tailnet_id)
        return room.snapshot.nodes.get(node_id) if room is not None else None

    # -- streams

    async def subscribe(
        self,
        tailnet_id: int,
        node_id: int,
        stream: MapStream,
        *,
        zstd: bool,
        peers: bool = True,
        disco_key: str = "",
        address: str = "",
    ) -> bool:
        """Give a node's long poll its full map, and every change from then on; ``False`` when it is gone.

        ``disco_key`` and ``address`` tell machines apart that use the same keys.
        """
        room = await self.room(tailnet_id)
        node = room.snapshot.nodes.get(node_id) if room is not None else None
        if room is None or node is None:
            return False
        now = asyncio.get_running_loop().time()
        subscriber = Subscriber(
            node_id,
            stream,
            zstd,
            peers,
            disco_key=disco_key,
            seen=Seen(address, hostname(node.hostinfo)),
            since=now,
            keepalive_due=next_keepalive(now),
        )
        await room.join(subscriber, is_node=room.audience.admits(node, disco_key))
        return True

    def admits(self, tailnet_id: int, node_id: int, disco_key: str) -> bool:
        """Whether a run of a client speaks for the node, and not a machine that uses the same keys."""
        room, node = self.rooms.get(tailnet_id), self._node(tailnet_id, node_id)
        return room is None or node is None or room.audience.admits(node, disco_key)

    async def full_map(self, tailnet_id: int, node_id: int, *, peers: bool) -> bytes | None:
        """One whole map as JSON, for a request that does not stream."""
        room = await self.room(tailnet_id)
        if room is None or node_id not in room.snapshot.nodes:
            return None
        return room.engine.full_map(node_id, datetime.now(UTC), peers=peers)

    def send_ping(self, tailnet_id: int, node_id: int, ping: dict[str, Any]) -> bool:
        """Send a PingRequest on a node's stream; ``False`` when it has none here."""
        room = self.rooms.get(tailnet_id)
        subscriber = room.audience.subscribers.get(node_id) if room is not None else None
        if subscriber is None:
            return False
        subscriber.send(encode_json({"KeepAlive": True, "PingRequest": ping}))
        return True

    # -- what nodes report

    def report(self, tailnet_id: int, node_id: int, **facts: Any) -> dict[str, Any]:
        """Take a node's volatile facts (members of :class:`NodeSnapshot`): pushed at once, written behind.

        Returns those that were news.
        """
        room = self.rooms.get(tailnet_id)
        return room.facts.report(node_id, facts) if room is not None else {}

    def take_hostinfo(self, tailnet_id: int, node_id: int, hostinfo: dict[str, Any]) -> None:
        """Take a node's new Hostinfo and what follows from it."""
        if (room := self.rooms.get(tailnet_id)) is not None:
            room.facts.take_hostinfo(node_id, hostinfo)

    def hostinfo_of(self, tailnet_id: int, node_id: int) -> dict[str, Any]:
        """What a node said of its host last; empty for one that is not here."""
        node = self._node(tailnet_id, node_id)
        return dict(node.hostinfo) if node is not None else {}

    async def write_now(self, tailnet_id: int) -> None:
        """Wait until what was reported is written."""
        if (room := self.rooms.get(tailnet_id)) is not None:
            await room.unwritten.write()
