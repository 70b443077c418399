"""The tailnets with streams in this process, loaded when the first one asks and closed when they are idle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from controlplane.hub.room import Room, Shared
from controlplane.netmap.snapshot import NodeSnapshot
from controlplane.netmap.state import State


class Rooms:
    """One :class:`Room` for each, by the tailnet's id."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._rooms: dict[int, Room] = {}
        self._loading: dict[int, asyncio.Task[Room | None]] = {}

    def __iter__(self) -> Iterator[Room]:
        """Those of this moment; they may come and go meanwhile."""
        return iter(list(self._rooms.values()))

    def ids(self) -> list[int]:
        return list(self._rooms)

    def get(self, tailnet_id: int) -> Room | None:
        return self._rooms.get(tailnet_id)

    # -- opening and closing

    async def open(self, tailnet_id: int) -> Room | None:
        """The tailnet's room, loaded when it is not there yet; ``None`` when the tailnet is gone."""
        if (room := self._rooms.get(tailnet_id)) is not None:
            room.used = asyncio.get_running_loop().time()
            return room
        if tailnet_id not in self._loading:
            task = self._shared.tasks.spawn(self._load(tailnet_id))
            self._loading[tailnet_id] = task
            task.add_done_callback(lambda _: self._loading.pop(tailnet_id, None))
        return await asyncio.shield(self._loading[tailnet_id])

    async def _load(self, tailnet_id: int) -> Room | None:
        await self._shared.layer.join(tailnet_id)  # first, so that no change is missed
        snapshot = await self._shared.database.load_tailnet(tailnet_id)
        return self.add(await self._shared.workshop.prepare(snapshot)) if snapshot is not None else None

    def add(self, state: State) -> Room:
        """A room of what was loaded."""

        async def close() -> None:
            await self.close(room)

        room = Room(state, self._shared, gone=close)
        self._rooms[state.snapshot.id] = room
        return room

    async def close(self, room: Room) -> None:
        """The tailnet was deleted, or nobody is here any more: its streams end."""
        self._rooms.pop(room.snapshot.id, None)
        room.close()
        await self._shared.layer.leave(room.snapshot.id)

    # -- looking up

    def find_by_key(self, node_key: str) -> NodeSnapshot | None:
        """A node of a loaded tailnet by its key; ``None`` says nothing about tailnets that are not loaded."""
        owner = self._shared.keys.find(node_key)
        room = self._rooms.get(owner.tailnet_id) if owner else None
        node = room.snapshot.nodes.get(owner.node_id) if room and owner else None
        return node if node is not None and node.node_key == node_key else None

    def tailnet_of_key(self, node_key: str) -> int | None:
        owner = self._shared.keys.find(node_key)
        return owner.tailnet_id if owner and self.find_by_key(node_key) else None
