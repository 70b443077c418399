"""A tailnet under its policy in force, for pages: evaluated once for each of the tailnet's versions.

The hub has its own; pages may be served by another process, and for tailnets that no device is connected to.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from accounts.errors import NotFound
from accounts.models import Tailnet
from controlplane.netmap import primaries
from controlplane.netmap.policy.concerns import Reach
from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.netmap.snapshot import NodeSnapshot, Standing, TailnetSnapshot
from controlplane.snapshots import load_tailnet

MAX_KEPT = 8  # tailnets
NOBODYS = 0  # no row has this id

_kept: dict[int, Evaluated] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A snapshot and what the policy in force means in it. ``made`` is when the tailnet was."""

    snapshot: TailnetSnapshot
    evaluation: Evaluation
    reach: Reach
    made: datetime


def evaluated(tailnet: Tailnet) -> Evaluated:
    """The tailnet as it is now; one query while nothing has changed."""
    version = Tailnet.objects.filter(pk=tailnet.pk).values_list("netmap_version", flat=True).first()
    kept = _kept.get(tailnet.pk)
    if kept is not None and (kept.snapshot.version, kept.made) == (version, tailnet.created):
        return kept
    rows = load_tailnet(tailnet.pk)
    if rows is None:
        raise NotFound("there is no such tailnet")
    snapshot = primaries.elected(rows)
    evaluation = _evaluation(kept, snapshot)
    made = Evaluated(snapshot, evaluation, Reach(evaluation), tailnet.created)
    with _lock:
        _kept.pop(tailnet.pk, None)
        while len(_kept) >= MAX_KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[tailnet.pk] = made
    return made


def _evaluation(kept: Evaluated | None, snapshot: TailnetSnapshot) -> Evaluation:
    if kept is not None and kept.snapshot.policy is snapshot.policy:
        return kept.evaluation.updated(snapshot)
    return Evaluation.of(snapshot.policy, snapshot)


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
