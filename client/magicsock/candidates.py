"""The addresses at which a peer might be reached, and which of two is the better one. Pure.

Source: tailscale wgengine/magicsock/endpoint.go (endpointState, betterAddr).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Address = tuple[str, int]

MAX_CANDIDATES = 100
MAX_CALLED = 64  # of one call-me-maybe
HEARD_FOR = 45.0  # an address learnt from a ping is forgotten so long after its last one, in seconds

LOOPBACK_POINTS, LINK_LOCAL_POINTS, PRIVATE_POINTS, IPV6_POINTS = 50, 30, 20, 10
PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))


def parse_address(text: str) -> Address | None:
    """``ip:port`` or ``[ip]:port`` as in a netmap; ``None`` for what is neither."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if "%" in host:  # a scope is of another host's interfaces
        return None
    try:
        ip = ipaddress.ip_address(host)
        return str(getattr(ip, "ipv4_mapped", None) or ip), int(port)
    except ValueError:
        return None


def is_usable(address: Address) -> bool:
    """Whether a peer on another host can be there. Loopback is ours alone: there it means "by relay"."""
    try:
        ip = ipaddress.ip_address(address[0])
    except ValueError:
        return False
    if ip.is_unspecified or ip.is_multicast or ip.is_loopback or (ip.version == 6 and ip.is_link_local):
        return False
    return 0 < address[1] <= 65535 and str(ip) != "255.255.255.255"


def is_loopback(address: Address) -> bool:
    return address[0].startswith("127.") or address[0] == "::1"


def shows_hard_nat(named: Iterable[Address]) -> bool:
    """Whether a peer's addresses are those of one behind a hard NAT.

    Such a node gives its public address twice, as servers saw it and with its own port, for someone may have
    forwarded that.
    """
    hosts = [host for host, _ in set(named) if ":" not in host]
    return len(hosts) > len(set(hosts))


@dataclass(slots=True)
class Candidate:
    """One address of a peer: who named it, and how it answers. Times are of the caller's clock."""

    address: Address
    in_netmap: bool = False
    called: bool = False
    heard_at: float | None = None
    heard_txid: bytes = b""
    pinged_at: float | None = None
    ponged_at: float | None = None
    latency: float | None = None

    def is_dead(self, now: float) -> bool:
        """Nobody names it any more."""
        heard = self.heard_at is not None and now - self.heard_at <= HEARD_FOR
        return not (self.in_netmap or self.called or heard)

    def forget_probes(self) -> None:
        self.pinged_at = self.ponged_at = self.latency = None


class Candidates:
    """A peer's candidates, by address, at most ``MAX_CANDIDATES``."""

    def __init__(self) -> None:
        self._known: dict[Address, Candidate] = {}

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def get(self, address: Address) -> Candidate | None:
        return self._known.get(address)

    def named(self) -> list[Address]:
        """What the peer itself says that it has, by netmap or call."""
        return [known.address for known in self if known.in_netmap or known.called]

    def name(self, addresses: Iterable[Address], now: float) -> None:
        """What the netmap says now, in place of what it said before."""
        for known in self:
            known.in_netmap = False
        for address in filter(is_usable, addresses):
            if candidate := self._obtain(address, now):
                candidate.in_netmap = True
        self.prune(now)

    def call(self, addresses: Iterable[Address], now: float) -> None:
        """What the newest call-me-maybe says, in place of the one before."""
        for known in self:
            known.called = False
        for address in [address for address in addresses if is_usable(address)][:MAX_CALLED]:
            if candidate := self._obtain(address, now):
                candidate.called = True
        self.prune(now)

    def hear(self, address: Address, txid: bytes, now: float) -> bool:
        """A ping came from there; ``False`` when it is the one that came before."""
        if not is_usable(address):
            return True
        candidate = self._obtain(address, now)
        if candidate is None:
            return True
        is_new, candidate.heard_txid, candidate.heard_at = candidate.heard_txid != txid, txid, now
        return is_new

    def keep(self, address: Address, now: float) -> Candidate:
        """The candidate of an address in use, whether anyone names it or not."""
        candidate = self._known.get(address)
        if candidate is None:
            self.prune(now)  # a peer that moves all the time is only remembered where it was lately
            candidate = self._add(address)
        candidate.heard_at = now
        return candidate

    def prune(self, now: float) -> None:
        for address in [candidate.address for candidate in self if candidate.is_dead(now)]:
            del self._known[address]

    def forget_probes(self) -> None:
        """The network changed: what was measured is worth nothing."""
        for candidate in self:
            candidate.forget_probes()

    def _obtain(self, address: Address, now: float) -> Candidate | None:
        if found := self._known.get(address):
            return found
        if len(self) >= MAX_CANDIDATES:
            self.prune(now)
        return self._add(address) if len(self) < MAX_CANDIDATES else None

    def _add(self, address: Address) -> Candidate:
        self._known[address] = candidate = Candidate(address)
        return candidate


def _points(address: Address) -> int:
    """What speaks for an address beside its latency, in percent of latency."""
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    points = IPV6_POINTS if ip.version == 6 else 0
    if ip.is_loopback:
        return points + LOOPBACK_POINTS
    if ip.is_link_local:
        return points + LINK_LOCAL_POINTS
    return points + PRIVATE_POINTS if any(ip in network for network in PRIVATE) else points


def is_better(new: Candidate, old: Candidate) -> bool:
    """Whether to move from ``old`` to ``new``: clearly quicker, or about as quick and nearer by its kind.

    Both were measured. A gain of at most one percent is none, so that two equal paths do not alternate.
    """
    if new.latency is None or old.latency is None or new.address == old.address:
        return False
    slower = max(new.latency, old.latency) or 1e-9
    for_new = int(100 - 100 * new.latency / slower)
    for_old = int(100 - 100 * old.latency / slower)
    for_new, for_old = for_new + _points(new.address), for_old + _points(old.address)
    if for_new <= 1 and for_old == 0:
        return False
    return for_new > for_old
