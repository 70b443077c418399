"""Deciding about what waits: each entry of the queue by the service that owns what it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from accounts.actors import Actor
from accounts.changes import write
from accounts.errors import ApplicationError, Conflict
from accounts.models import Membership, Tailnet
from accounts.services import people
from nodes.hostinfo import EXIT_ROUTES
from nodes.models import Node, Route
from nodes.services import lifecycle, routes
from nodes.state import NodeState

SLICE = 50  # how many are decided about in one transaction, which holds the tailnet's row

Subject = Node | Membership | Route


def decide(*, tailnet: Tailnet, subjects: Sequence[Subject], approved: bool, by: Actor) -> list[bool]:
    """Approve or reject each; tells which it was done to: what others were faster with is left alone."""
    act: Callable[..., None] = approve if approved else reject
    done: list[bool] = []
    for start in range(0, len(subjects), SLICE):
        with write(tailnet):
            done += [_tried(act, subject, by) for subject in subjects[start : start + SLICE]]
    return done


def _tried(act: Callable[..., None], subject: Subject, by: Actor) -> bool:
    try:
        act(subject=subject, by=by)
    except ApplicationError:  # its own savepoint is undone, the others stay
        return False
    return True


def approve(*, subject: Subject, by: Actor) -> None:
    """Let a device or a person in, or let a device carry what it offers (a Node that is active: as exit)."""
    if isinstance(subject, Membership):
        people.approve_member(membership=subject, by=by)
    elif isinstance(subject, Route):
        routes.set_route(node=subject.node, prefix=subject.prefix, approved=True, by=by)
    elif subject.life is NodeState.PENDING:
        lifecycle.approve_node(node=subject, by=by)
    else:
        routes.set_exit_node(node=subject, enabled=True, by=by)


def reject(*, subject: Subject, by: Actor) -> None:
    """Turn a device or a person away, or decline an offer; raises ``Conflict`` for what waits no more."""
    if isinstance(subject, Membership):
        _reject_person(subject, by)
    elif isinstance(subject, Node) and subject.life is NodeState.PENDING:
        lifecycle.reject_node(node=subject, by=by)
    else:
        node = subject.node if isinstance(subject, Route) else subject
        prefixes = {subject.prefix} if isinstance(subject, Route) else EXIT_ROUTES
        if not routes.decline_routes(node=node, prefixes=prefixes, by=by):
            raise Conflict("somebody has decided about this offer meanwhile")


def _reject_person(membership: Membership, by: Actor) -> None:
    """Whoever waits has no devices yet; somebody who was let in meanwhile keeps their place."""
    with write(membership.tailnet_id):
        row = Membership.objects.filter(pk=membership.pk, status=Membership.Status.NEEDS_APPROVAL).first()
        if row is None:
            raise Conflict("this person does not wait for approval")
        people.remove_member(membership=row, by=by)
