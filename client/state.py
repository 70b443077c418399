"""Which state the node is in, and what it therefore does. Pure: facts in, decisions out.

Source: tailscale ipn/ipnlocal/local.go (nextState), ipn/backend.go for the names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from wire.netmap import NetMap, Node

EXPIRY_GRACE = timedelta(seconds=10)  # clocks differ: the server ends a key first


class State(StrEnum):
    NO_STATE = "NoState"
    NEEDS_LOGIN = "NeedsLogin"
    NEEDS_MACHINE_AUTH = "NeedsMachineAuth"
    STOPPED = "Stopped"
    STARTING = "Starting"
    RUNNING = "Running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that decides. ``key_good``: the node key is neither expired nor unknown to the server."""

    started: bool = True
    has_key: bool = False
    want_running: bool = False
    key_good: bool = True
    has_netmap: bool = False
    authorized: bool = False
    tunnel_up: bool = False
    login_open: bool = False


# The first row whose condition holds names the state.
STATES: tuple[tuple[Callable[[Facts], bool], State], ...] = (
    (lambda f: not f.started, State.NO_STATE),
    (lambda f: not f.has_key, State.NEEDS_LOGIN),
    (lambda f: not f.want_running, State.STOPPED),
    (lambda f: not f.key_good, State.NEEDS_LOGIN),
    (lambda f: not f.has_netmap, State.STARTING),
    (lambda f: not f.authorized, State.NEEDS_MACHINE_AUTH),
    (lambda f: not f.tunnel_up, State.STARTING),
    (lambda f: True, State.RUNNING),
)


def state_of(facts: Facts) -> State:
    return next(state for condition, state in STATES if condition(facts))


@dataclass(frozen=True, slots=True)
class Duties:
    """``control``: hold a control session. ``tunnel``: have the interface up."""

    control: bool
    tunnel: bool


def duties(facts: Facts) -> Duties:
    """A node whose key expired keeps its control session (an administrator may extend the key) but no tunnel.

    A pending node has its tunnel up, with nobody in it: once approved it is reachable at once.
    """
    joined = facts.started and facts.has_key and facts.want_running
    return Duties(
        control=facts.started and (joined or facts.login_open),
        tunnel=joined and facts.key_good and facts.has_netmap,
    )


def is_expired(netmap: NetMap, now: datetime) -> bool:
    """Whether this node's own key has run out at ``now`` (the server's time)."""
    return netmap.node.expired or _has_run_out(netmap.node, now)


def without_expired(netmap: NetMap, now: datetime) -> NetMap:
    """``netmap`` with the peers marked whose keys have run out: the server may be away, and not say so."""
    over = {peer.id: replace(peer, expired=True) for peer in netmap.peers.values() if _has_run_out(peer, now)}
    return replace(netmap, peers={**netmap.peers, **over}) if over else netmap


def next_expiry(netmap: NetMap, now: datetime) -> timedelta | None:
    """How long until the next key runs out, this node's or a peer's; ``None`` = none will."""
    moments = [
        node.key_expiry for node in (netmap.node, *netmap.peers.values()) if node.key_expiry is not None
    ]
    left = [moment - (now - EXPIRY_GRACE) for moment in moments]
    return min((time for time in left if time > timedelta()), default=None)


def _has_run_out(node: Node, now: datetime) -> bool:
    return node.key_expiry is not None and node.key_expiry <= now - EXPIRY_GRACE
