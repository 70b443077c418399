"""The states of a path, what moves it between them, and what it knows of its peer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from client.magicsock.candidates import Address
from wire.keys import DiscoPublic


class State(Enum):
    """By relay: nothing to do, or looking for a direct path. Direct: vouched for, or in doubt."""

    RELAYED = "relayed"
    PROBING = "probing"
    DIRECT = "direct"
    DOUBTED = "doubted"


class Signal(Enum):
    """What the evidence amounts to."""

    AWAKE = auto()  # a session began
    ASLEEP = auto()  # no packet for ACTIVE seconds
    CONFIRMED = auto()  # a direct address answers, or WireGuard receives through it
    LAPSED = auto()  # nothing vouches for the direct address any more
    RELAY_LIVES = auto()  # the direct address fails, and the peer is there on the relay
    SILENT = auto()  # the peer is not there on the relay, and a direct address was good once


# What is not in the table changes nothing.
TRANSITIONS: dict[tuple[State, Signal], State] = {
    (State.RELAYED, Signal.AWAKE): State.PROBING,
    (State.RELAYED, Signal.CONFIRMED): State.DIRECT,
    (State.PROBING, Signal.ASLEEP): State.RELAYED,
    (State.PROBING, Signal.CONFIRMED): State.DIRECT,
    (State.PROBING, Signal.SILENT): State.DOUBTED,
    (State.DIRECT, Signal.LAPSED): State.DOUBTED,
    (State.DOUBTED, Signal.CONFIRMED): State.DIRECT,
    (State.DOUBTED, Signal.RELAY_LIVES): State.PROBING,
}


class Timer(Enum):
    """What a path waits for, each with the time it is due. SLEEP is set exactly while a session is on."""

    SLEEP = auto()
    HEARTBEAT = auto()
    PROBE = auto()
    JUDGE = auto()
    ASK_RELAY = auto()
    SILENCE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """What the netmap says of a peer. ``home`` 0 = unknown; ``disco`` zero = the peer cannot be asked."""

    disco: DiscoPublic
    home: int = 0
    endpoints: tuple[Address, ...] = ()
