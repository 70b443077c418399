"""What nodes reported lately: kept over reloads until the database surely has it, and written behind."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, KeysView, Mapping
from typing import Any

from controlplane.hub.database import Database
from nodes.services.volatile import Volatile

VOLATILE_SECONDS = 10.0  # by then a report is written: rows that are read later hold it

Facts = Mapping[str, Any]


class Recent:
    """The latest facts of each node, and when the last of them came. Pure; times are loop times."""

    def __init__(self) -> None:
        self._facts: dict[int, tuple[float, dict[str, Any]]] = {}

    def add(self, node_id: int, facts: Facts, now: float) -> None:
        self._facts[node_id] = (now, {**self.of(node_id), **facts})

    def of(self, node_id: int) -> dict[str, Any]:
        """What is to be laid over the node's row."""
        return self._facts[node_id][1] if node_id in self._facts else {}

    def forget(self, node_id: int) -> None:
        self._facts.pop(node_id, None)

    def forget_old(self, now: float, keep: Collection[int]) -> None:
        """Drop what the database has had time to take; ``keep`` names nodes of which it has not."""
        before = now - VOLATILE_SECONDS
        old = [i for i, (since, _) in self._facts.items() if since < before and i not in keep]
        for node_id in old:
            del self._facts[node_id]


def stored(facts: Facts) -> dict[str, Any]:
    """Those facts that have a column, as :class:`Volatile` names them."""
    return {name: value for name, value in facts.items() if name in Volatile.__dataclass_fields__}


class Unwritten:
    """The facts of one tailnet's nodes that the database has not got."""

    def __init__(self, tailnet_id: int, database: Database) -> None:
        self._tailnet_id = tailnet_id
        self._database = database
        self._facts: dict[int, dict[str, Any]] = {}
        self._writing = asyncio.Lock()

    def add(self, node_id: int, facts: Facts) -> None:
        if columns := stored(facts):
            self._facts.setdefault(node_id, {}).update(columns)

    @property
    def node_ids(self) -> KeysView[int]:
        return self._facts.keys()

    async def write(self) -> None:
        """Wait until what was added is written; those who wait together share a transaction."""
        async with self._writing:
            if self._facts:
                await self._write()

    async def _write(self) -> None:
        writing, self._facts = self._facts, {}
        reports = [Volatile(node_id=node_id, **facts) for node_id, facts in writing.items()]
        try:
            await self._database.write_volatile(self._tailnet_id, reports)
        except Exception:
            for node_id, facts in writing.items():  # what was added meanwhile is newer
                self._facts[node_id] = facts | self._facts.get(node_id, {})
            raise
