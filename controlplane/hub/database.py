"""All that the hub wants of the database, as one interface. Each call runs in a thread."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from controlplane import snapshots
from controlplane.netmap.snapshot import TailnetSnapshot
from controlplane.snapshots import in_thread
from nodes.services.clones import saw_clones
from nodes.services.presence import Claim, claim_presences, release_presence, renew_presence
from nodes.services.volatile import Volatile, write_volatile


class Database:
    """The rows as this worker reads and writes them. ``worker`` is its name in the leases of its streams."""

    def __init__(self, worker: str) -> None:
        self._worker = worker

    async def load_tailnet(self, tailnet_id: int) -> TailnetSnapshot | None:
        return await in_thread(snapshots.load_tailnet)(tailnet_id)

    async def load_nodes(
        self, snapshot: TailnetSnapshot, node_ids: Collection[int], version: int
    ) -> TailnetSnapshot:
        return await in_thread(snapshots.load_nodes)(snapshot, node_ids, version)

    async def load_versions(self, tailnet_ids: Collection[int]) -> dict[int, int]:
        return await in_thread(snapshots.load_versions)(tailnet_ids)

    async def claim(self, tailnet_id: int, node_ids: Collection[int]) -> dict[int, Claim]:
        """The streams of these nodes are here; what those that exist have of it."""
        return await in_thread(claim_presences)(tailnet=tailnet_id, node_ids=node_ids, worker=self._worker)

    async def renew(self, tailnet_id: int, node_ids: Collection[int]) -> None:
        await in_thread(renew_presence)(tailnet=tailnet_id, worker=self._worker, node_ids=node_ids)

    async def release(self, tailnet_id: int, node_id: int, epoch: int) -> bool:
        """A stream has ended; ``False`` when the node has a newer one somewhere."""
        return await in_thread(release_presence)(tailnet=tailnet_id, node_id=node_id, epoch=epoch)

    async def ended_presences(self, tailnet_id: int, node_ids: Collection[int]) -> list[int]:
        return await in_thread(snapshots.ended_presences)(tailnet_id, node_ids)

    async def write_volatile(self, tailnet_id: int, reports: Collection[Volatile]) -> None:
        await in_thread(write_volatile)(tailnet=tailnet_id, reports=reports)

    async def saw_clones(self, tailnet_id: int, seen: Mapping[int, str]) -> None:
        await in_thread(saw_clones)(tailnet=tailnet_id, seen=seen)
