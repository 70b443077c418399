"""A tailnet under its policy in force, for pages: evaluated once for each of the tailnet's versions.

The hub of this process has the tailnet while a device is connected here, and reads only what changed: its
snapshot is taken if there is one. Its evaluation stays its own: threads that share one disturb each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from accounts.errors import NotFound
from accounts.models import Tailnet
from controlplane.netmap.policy.concerns import Reach
from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.netmap.snapshot import NodeSnapshot, Standing, TailnetSnapshot
from controlplane.netmap.state import State
from controlplane.snapshots import load_tailnet

MAX_KEPT = 8  # tailnets
NOBODYS = 0  # no row has this id

LIVE_SECONDS = 0.25  # to wait for the hub, which hears of a change as the page does
LOOK_SECONDS = 0.01
READERS = 8  # tailnets that are read at once; of one tailnet there is one reading, and the others wait for it

Live = Callable[[int], TailnetSnapshot | None]

_kept: dict[int, Evaluated] = {}
_lock = threading.Lock()
_readers = [threading.Lock() for _ in range(READERS)]
_live: Live | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A snapshot and what the policy in force means in it. ``made`` is when the tailnet was."""

    snapshot: TailnetSnapshot
    evaluation: Evaluation
    reach: Reach
    made: datetime


def follow(live: Live | None) -> None:
    """Where the newest snapshot of a tailnet is to be had without reading it; ``None`` = nowhere."""
    global _live  # noqa: PLW0603 - one hub per process
    _live = live


def evaluated(tailnet: Tailnet) -> Evaluated:
    """The tailnet as it is now; one query while nothing has changed."""
    if (kept := _current(tailnet, _version(tailnet))) is not None:
        return kept
    with _readers[tailnet.pk % READERS]:
        version = _version(tailnet)
        if (kept := _current(tailnet, version)) is None:
            kept = _keep(_evaluate(tailnet, _of_hub(tailnet, version) or load_tailnet(tailnet.pk)))
    return kept


def _version(tailnet: Tailnet) -> int:
    version = Tailnet.objects.filter(pk=tailnet.pk).values_list("netmap_version", flat=True).first()
    if version is None:
        raise NotFound("there is no such tailnet")
    return version


def _current(tailnet: Tailnet, version: int) -> Evaluated | None:
    kept = _kept.get(tailnet.pk)
    if kept is None or (kept.snapshot.version, kept.made) != (version, tailnet.created):
        return None
    return kept


def _of_hub(tailnet: Tailnet, version: int) -> TailnetSnapshot | None:
    """What the hub has of this version or a newer one; ``None`` when it has not, or is late."""
    deadline = time.monotonic() + LIVE_SECONDS
    while _live is not None and (snapshot := _live(tailnet.pk)) is not None:
        if snapshot.version >= version:
            return snapshot
        if time.monotonic() > deadline:
            break
        time.sleep(LOOK_SECONDS)
    return None


def _evaluate(tailnet: Tailnet, snapshot: TailnetSnapshot | None) -> Evaluated:
    """The next one, from the one before where there is one."""
    if snapshot is None:
        raise NotFound("there is no such tailnet")
    kept = _kept.get(tailnet.pk)
    state = State.of(snapshot) if kept is None else State(kept.snapshot, kept.evaluation).next(snapshot)[0]
    return Evaluated(state.snapshot, state.evaluation, Reach(state.evaluation), tailnet.created)


def _keep(made: Evaluated) -> Evaluated:
    with _lock:
        _kept.pop(made.snapshot.id, None)
        while len(_kept) >= MAX_KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[made.snapshot.id] = made
    return made


def with_device_of(one: Evaluated, user_id: int) -> Evaluated:
    """The same with a device of a person who has none yet: ``NOBODYS``, without an address."""
    device = NodeSnapshot(
        id=NOBODYS,
        stable_id="",
        name="",
        user_id=user_id,
        machine_key="",
        node_key="",
        ipv4="0.0.0.0",  # noqa: S104 - an address that no device has
        ipv6="::",
        standing=Standing.ACTIVE,
        created=datetime.fromtimestamp(0, UTC),
    )
    snapshot = replace(one.snapshot, nodes=dict(one.snapshot.nodes) | {NOBODYS: device})
    evaluation = one.evaluation.updated(snapshot, [NOBODYS])
    return Evaluated(snapshot, evaluation, Reach(evaluation), one.made)
