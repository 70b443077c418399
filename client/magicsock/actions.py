"""What a path wants done, in the order given."""

from __future__ import annotations

from dataclasses import dataclass

from client.magicsock.candidates import Address
from wire.disco import Ping, Pong


@dataclass(frozen=True, slots=True)
class SendDirect:
    """Send a disco message to an address."""

    to: Address
    message: Ping | Pong


@dataclass(frozen=True, slots=True)
class SendRelay:
    """Send a disco message to the peer through a relay region."""

    region: int
    message: Ping | Pong


@dataclass(frozen=True, slots=True)
class CallPeer:
    """Send a call-me-maybe with this node's own (fresh) endpoints through a relay region."""

    region: int


@dataclass(frozen=True, slots=True)
class UseDirect:
    """First let relayed packets bear ``endpoint`` as their source, then set WireGuard's endpoint."""

    endpoint: Address


@dataclass(frozen=True, slots=True)
class UseRelay:
    """First let relayed packets be injected plainly, then set WireGuard's endpoint to the loopback one."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A person's ping ``number`` was answered: from ``address``, or (``None``) through ``region``."""

    number: int
    latency: float
    address: Address | None
    region: int


Action = SendDirect | SendRelay | CallPeer | UseDirect | UseRelay | Answered
Actions = list[Action]
