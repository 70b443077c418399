"""The life of a node: one table of what may happen in which state. Pure: no clock, no database.

Being online is not a state: any node that still has a row may hold a map stream. Approval is remembered
apart from the state (``Node.approved_at``), so a login takes one of two events by it.
"""

from __future__ import annotations

from enum import StrEnum


class NodeState(StrEnum):
    """PENDING waits for approval; EXPIRED and LOGGED_OUT need a login; DELETED has no row any more."""

    PENDING = "pending"
    ACTIVE = "active"
    EXPIRED = "expired"
    LOGGED_OUT = "logged-out"
    DELETED = "deleted"


class NodeEvent(StrEnum):
    LOGIN = "login"  # a login (or an extended expiry) of an approved node
    LOGIN_UNAPPROVED = "login-unapproved"
    RESTART = "restart"
    ROTATE = "rotate"
    APPROVE = "approve"
    UNAPPROVE = "unapprove"
    REJECT = "reject"
    EXPIRE = "expire"
    LOGOUT = "logout"
    DELETE = "delete"


class ForbiddenTransition(Exception):
    """The event cannot happen in this state."""

    def __init__(self, state: NodeState, event: NodeEvent) -> None:
        super().__init__(f"a node that is {state.value} cannot {event.value}")
        self.state = state
        self.event = event


S, E = NodeState, NodeEvent

# fmt: off
TRANSITIONS: dict[tuple[NodeState, NodeEvent], NodeState] = {
    (S.PENDING, E.LOGIN): S.ACTIVE,
    (S.PENDING, E.LOGIN_UNAPPROVED): S.PENDING,
    (S.PENDING, E.RESTART): S.PENDING,
    (S.PENDING, E.ROTATE): S.PENDING,
    (S.PENDING, E.APPROVE): S.ACTIVE,
    (S.PENDING, E.UNAPPROVE): S.PENDING,
    (S.PENDING, E.REJECT): S.DELETED,
    (S.PENDING, E.EXPIRE): S.EXPIRED,
    (S.PENDING, E.LOGOUT): S.LOGGED_OUT,
    (S.PENDING, E.DELETE): S.DELETED,

    (S.ACTIVE, E.LOGIN): S.ACTIVE,
    (S.ACTIVE, E.RESTART): S.ACTIVE,
    (S.ACTIVE, E.ROTATE): S.ACTIVE,
    (S.ACTIVE, E.APPROVE): S.ACTIVE,
    (S.ACTIVE, E.UNAPPROVE): S.PENDING,
    (S.ACTIVE, E.EXPIRE): S.EXPIRED,
    (S.ACTIVE, E.LOGOUT): S.LOGGED_OUT,
    (S.ACTIVE, E.DELETE): S.DELETED,

    (S.EXPIRED, E.LOGIN): S.ACTIVE,
    (S.EXPIRED, E.LOGIN_UNAPPROVED): S.PENDING,
    (S.EXPIRED, E.APPROVE): S.EXPIRED,
    (S.EXPIRED, E.UNAPPROVE): S.EXPIRED,
    (S.EXPIRED, E.EXPIRE): S.EXPIRED,
    (S.EXPIRED, E.LOGOUT): S.LOGGED_OUT,
    (S.EXPIRED, E.DELETE): S.DELETED,

    (S.LOGGED_OUT, E.LOGIN): S.ACTIVE,
    (S.LOGGED_OUT, E.LOGIN_UNAPPROVED): S.PENDING,
    (S.LOGGED_OUT, E.APPROVE): S.LOGGED_OUT,
    (S.LOGGED_OUT, E.UNAPPROVE): S.LOGGED_OUT,
    (S.LOGGED_OUT, E.LOGOUT): S.LOGGED_OUT,
    (S.LOGGED_OUT, E.DELETE): S.DELETED,
}
# fmt: on

# States in which the node's key opens the network's control plane without a new login.
KEY_IS_GOOD = frozenset({S.PENDING, S.ACTIVE})


def next_state(state: NodeState, event: NodeEvent) -> NodeState:
    """The state after ``event``; raises :class:`ForbiddenTransition` when the table has no such row."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ForbiddenTransition(state, event) from None


def login_event(*, approved: bool) -> NodeEvent:
    return E.LOGIN if approved else E.LOGIN_UNAPPROVED
