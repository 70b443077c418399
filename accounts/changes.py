"""How a durable change becomes visible: one transaction, a new ``netmap_version``, a message after commit.

Every service that alters what nodes or pages may see works inside :func:`write` (or calls
:func:`record_change` in its own transaction). After the commit these messages go out on the channel layer:

- group ``tailnet.<id>``: ``{"type": "netmap.change", "tailnet": id, "version": n,
  "rows": [{"model": "node", "id": 5, "op": "upsert"|"delete"}, …]}`` for the hub;
- group ``relays``: ``{"type": "relay.change", "tailnet": id, "version": n}`` when nodes may have changed;
- group ``panel.<id>``: ``{"type": "panel.change", "tailnet": id, "version": n,
  "changes": [{"type": "node", "id": 5, "version": n, "op": "upsert"|"delete"}, …]}`` for pages.

Messages may be lost; ``Tailnet.netmap_version`` is the truth, and readers compare it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from asgiref.sync import async_to_sync
from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.db import transaction
from django.db.models import F
from redis.exceptions import RedisError

from accounts.models import Tailnet
from accounts.tenancy import scope

logger = logging.getLogger("trenza.changes")

MAX_ROWS = 1000  # a message that would name more rows names none; readers then reload the tailnet
SEND_SECONDS = 5.0  # a Redis that hangs must not gather messages that wait for it
LAYER_ERRORS = (OSError, TimeoutError, RedisError)  # what a channel layer raises while Redis is away
WHOLE = "tailnet"
RELAY_GROUP = "relays"

Op = Literal["upsert", "delete"]
_loop: asyncio.AbstractEventLoop | None = None
_sending: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """One row that changed: the model's lower-case name, its id, what happened."""

    model: str
    id: int
    op: Op = "upsert"


@dataclass(slots=True)
class ChangeSet:
    """What one write has changed so far; ``tailnet`` is the locked row, current inside the transaction."""

    tailnet: Tailnet
    rows: list[ChangedRow] = field(default_factory=list)

    def upsert(self, model: str, *ids: int) -> None:
        self.rows.extend(ChangedRow(model, row_id) for row_id in ids)

    def delete(self, model: str, *ids: int) -> None:
        self.rows.extend(ChangedRow(model, row_id, "delete") for row_id in ids)


def set_loop(loop: asyncio.AbstractEventLoop | None) -> None:
    """Tell this process's server loop: messages from other threads hop onto it at once."""
    global _loop  # noqa: PLW0603 - one loop per process, set at start-up
    _loop = loop


@contextmanager
def write(tailnet: Tailnet | int) -> Iterator[ChangeSet]:
    """A write transaction of one tailnet: its row is locked first, its scope open, its changes published.

    The lock orders a tailnet's writes (SQLite: its write transactions are IMMEDIATE), so checking and
    writing inside is safe from races: keys used once, addresses and names given once. Keep it short.
    """
    pk = tailnet if isinstance(tailnet, int) else tailnet.pk
    with transaction.atomic():
        locked = Tailnet.objects.select_for_update().get(pk=pk)
        with scope(tailnet=locked):
            changes = ChangeSet(locked)
            yield changes
        if changes.rows:
            record_change(locked, changes.rows)


def record_change(tailnet: Tailnet, rows: Sequence[ChangedRow]) -> int:
    """Bump the tailnet's version in the current transaction and publish after it; returns the new version."""
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError("record_change belongs inside the change's transaction")
    Tailnet.objects.filter(pk=tailnet.pk).update(netmap_version=F("netmap_version") + 1)
    version = Tailnet.objects.values_list("netmap_version", flat=True).get(pk=tailnet.pk)
    tailnet.netmap_version = version
    unique = list(dict.fromkeys(rows))
    if len(unique) > MAX_ROWS:
        unique = [ChangedRow(WHOLE, tailnet.pk)]
    transaction.on_commit(partial(_publish_change, tailnet.pk, version, unique), robust=True)
    return version


def record_end(tailnet: Tailnet) -> None:
    """Publish, after the current transaction, that this tailnet is no more."""
    last = tailnet.netmap_version + 1
    rows = [ChangedRow(WHOLE, tailnet.pk, "delete")]
    transaction.on_commit(partial(_publish_change, tailnet.pk, last, rows), robust=True)


def _publish_change(tailnet_id: int, version: int, rows: list[ChangedRow]) -> None:
    publish(
        f"tailnet.{tailnet_id}",
        {
            "type": "netmap.change",
            "tailnet": tailnet_id,
            "version": version,
            "rows": [{"model": row.model, "id": row.id, "op": row.op} for row in rows],
        },
    )
    if any(row.model in ("node", "membership", WHOLE) for row in rows):
        publish(RELAY_GROUP, {"type": "relay.change", "tailnet": tailnet_id, "version": version})
    publish(
        f"panel.{tailnet_id}",
        {
            "type": "panel.change",
            "tailnet": tailnet_id,
            "version": version,
            "changes": [{"type": row.model, "id": row.id, "version": version, "op": row.op} for row in rows],
        },
    )


def tell_pages(tailnet_id: int, kind: str, row_id: int) -> None:
    """Tell open pages of what no netmap carries and no version counts, such as devices' paths."""
    change = {"type": kind, "id": row_id, "version": 0, "op": "upsert"}
    publish(
        f"panel.{tailnet_id}",
        {"type": "panel.change", "tailnet": tailnet_id, "version": 0, "changes": [change]},
    )


def publish(group: str, message: dict[str, Any]) -> None:
    """Send a message to a channel-layer group from any thread; a lost one is logged, never raised.

    Without a server loop in this process (a command, a Celery worker) an in-memory layer has no reader, and
    Redis is written from here.
    """
    layer = get_channel_layer()
    if _loop is not None and not _loop.is_closed():
        _loop.call_soon_threadsafe(_start_sending, layer, group, message)
    elif not isinstance(layer, InMemoryChannelLayer):
        try:
            async_to_sync(layer.group_send)(group, message)
        except LAYER_ERRORS as error:
            logger.warning("could not publish to %s: %s; readers catch up by version", group, error)


def _start_sending(layer: Any, group: str, message: dict[str, Any]) -> None:
    task = asyncio.get_running_loop().create_task(_send(layer, group, message))
    _sending.add(task)
    task.add_done_callback(_sending.discard)


async def _send(layer: Any, group: str, message: dict[str, Any]) -> None:
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await layer.group_send(group, message)
    except LAYER_ERRORS as error:
        logger.warning("could not publish to %s: %s; readers catch up by version", group, error)
