"""What speaks for and against a peer's direct address, and for its being there on the relay. Pure.

A direct address is vouched for while Pongs come from it, or while WireGuard receives through it. The second
is not believed for ever: when pings fail for long although the peer's daemon answers by relay, the way out is
broken.
"""

from __future__ import annotations

from dataclasses import dataclass

TRUST = 6.5  # seconds for which a Pong, or bytes received, vouch (trustUDPAddrDuration)
PATIENCE = 15.0  # received bytes do not vouch for an address whose pings fail so long
FRESH = 7.0  # a peer heard by relay so recently is there: more than two asks (path.ASK_RELAY) apart
SILENT = 2.0  # so long without any answer, neither Pong nor bytes to what we send, ends trust early
MIN_DOUBT, MAX_DOUBT = 0.25, 1.0  # a doubted address gets so long to answer before the relay is taken
LATENCIES = 3  # within these bounds, so many times its latency
NEVER = float("-inf")


@dataclass(slots=True)
class Evidence:
    """Times on the caller's clock. ``unanswered_since``: the first ping since the last Pong."""

    pong_at: float = NEVER
    flow_at: float = NEVER
    sent_at: float = NEVER  # WireGuard sent something
    unanswered_since: float | None = None
    doubted_at: float = NEVER
    relay_at: float = NEVER
    relay_pong_at: float = NEVER
    relayed_at: float = NEVER  # WireGuard's packets from the relay

    def forget_direct(self) -> None:
        """The address is another one now, or the network is."""
        self.pong_at = self.flow_at = NEVER
        self.unanswered_since = None

    def forget_relay(self) -> None:
        self.relay_at = self.relay_pong_at = NEVER

    def answers(self, now: float) -> bool:
        """A Pong came recently."""
        return now < self.pong_at + TRUST

    def fails(self, now: float) -> bool:
        """Pings fail though the peer's daemon is up: it gave the address up itself, or they fail for long."""
        since = self.unanswered_since
        if since is None:
            return False
        given_up = self.relayed_at > max(self.flow_at, since) and now - since >= MAX_DOUBT
        return given_up or (now - since >= PATIENCE and now - self.relay_pong_at <= FRESH)

    def lapse(self, now: float) -> float:
        """When nothing vouches any more, as far as is known now.

        That is early when all that we send is met with silence, save that the peer answers by relay.
        """
        pong = self.pong_at + TRUST
        lapse = pong if self.fails(now) else max(pong, self.flow_at + TRUST)
        since = self.unanswered_since
        if since is not None and self.flow_at < since < min(self.sent_at, self.relay_pong_at):
            return min(lapse, since + SILENT)
        return lapse

    def leave_at(self, now: float, *, active: bool, latency: float) -> float | None:
        """When to leave a doubted address for the relay; ``None`` = not while the peer is silent there.

        An idle tunnel goes back to the relay as soon as it is known to work: the first packet of the next
        session is then neither lost on a path that a NAT has forgotten, nor does it go unnoticed.
        """
        if not active:
            return now if self.relay_at >= self.doubted_at else None
        since = self.unanswered_since
        if since is None or self.relay_at <= since or now - self.relay_at > FRESH:
            return None
        return since + min(MAX_DOUBT, max(MIN_DOUBT, LATENCIES * latency))
