"""One peer's path: a state machine that alone decides where WireGuard sends this peer's packets. Pure.

WireGuard has one endpoint per peer and roams by itself. It is either the relay (a loopback socket of the
shuttle; ``Path.endpoint`` is ``None``) or one direct address. A direct address that nothing vouches for
(:mod:`client.magicsock.evidence`) is doubted, and left for the relay only once the peer is heard there: a
peer whose daemon died answers nowhere, yet its WireGuard still receives at the old address.

Events are methods that take ``now`` and return actions, in order. :attr:`Path.deadline` says when to call
:meth:`Path.tick`. Source of numbers: tailscale wgengine/magicsock/endpoint.go.
"""

from __future__ import annotations

from collections.abc import Callable

from client.magicsock.actions import Actions, Answered, CallPeer, SendDirect, SendRelay, UseDirect, UseRelay
from client.magicsock.candidates import Address, Candidate, Candidates, is_better, is_usable
from client.magicsock.evidence import NEVER, PATIENCE, Evidence
from client.magicsock.pings import Pings
from client.magicsock.states import TRANSITIONS, PeerInfo, Signal, State, Timer
from client.wireguard import PeerStatus
from wire.disco import DERP_MAGIC_IP, CallMeMaybe, Ping, Pong
from wire.keys import DiscoPublic, NodePublic
from wire.paths import Reason

HEARTBEAT = 3.0  # between pings of the direct address in an active session
RETRY, RETRY_FOR = 0.5, 10.0  # between them while it does not answer, and for how long so often
ACTIVE = 45.0  # a session is active so long after WireGuard's last packet
UPGRADE = 60.0  # between looks for a better address than one that works
GOOD_ENOUGH = 0.005  # latency below which nothing better is looked for
PROBE, PROBE_ROUNDS, PROBE_SLOW = (
    5.0,
    12,
    30.0,
)  # between rounds of discovery; after so many rounds, the latter
REPLY_GAP = 1.0  # least time between pings that answer an event (a ping, a call, relay traffic)
ASK_RELAY, ASK_ROUNDS, ASK_SLOW = 3.0, 10, 10.0  # between pings by relay while the direct address is in doubt
MAX_IDLE_ASKS = 3
SILENCE = 5.0  # nobody heard by relay for so long after a session began: try the last good address
IN_FLIGHT = 1.0  # what was injected before the last look may be counted after it
UNKNOWN_LATENCY = 1.0


class Path:
    """See the module. ``entropy(n)`` gives n random bytes (transaction ids)."""

    def __init__(self, *, own_key: NodePublic, entropy: Callable[[int], bytes]) -> None:
        self.own_key = own_key
        self.state = State.RELAYED
        self.endpoint: Address | None = None
        self.candidates = Candidates()
        self.info = PeerInfo(disco=DiscoPublic.zero())
        self._pings = Pings(entropy)
        self._evidence = Evidence()
        self._timers: dict[Timer, float] = {}
        self._actions: Actions = []
        self._seen: PeerStatus | None = None
        self._polled_at = NEVER
        self._active_at = NEVER  # WireGuard's last packet, as far as is known
        self._awake_at = NEVER  # the session's beginning
        self._changed_at = NEVER  # when the endpoint was last set
        self._probed_at = NEVER
        self._reacted_at = NEVER
        self._heard_region = 0
        self._last_good: Address | None = None
        self._banned: Address | None = None  # the peer sends to us from there, but does not hear us
        self._rounds = 0
        self._asks = 0

    # --- what can be read --------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When :meth:`tick` has something to do; ``None`` = only after another event."""
        return min(self._timers.values(), default=None)

    @property
    def latency(self) -> float | None:
        """Seconds to the peer and back on the direct path, by its last answer; ``None`` = not known."""
        candidate = self.candidates.get(self.endpoint) if self.endpoint else None
        return None if candidate is None else candidate.latency

    @property
    def region(self) -> int:
        """The relay region through which the peer is reached; 0 = none known."""
        return self.info.home or self._heard_region

    def is_active(self, now: float) -> bool:
        return now < self._active_at + ACTIVE  # summed as the timer's due time is: floats round

    def reason(self, now: float) -> Reason | None:
        """Why the peer is reached through the relay, as far as its path knows; ``None`` when it is not."""
        if self.endpoint is not None:
            return None
        if self.info.disco.is_zero:
            return Reason.NO_DISCO
        if not self.is_active(now):
            return Reason.IDLE
        if not len(self.candidates):
            return Reason.NO_ENDPOINTS
        return Reason.LOOKING if self._rounds <= 1 else Reason.SILENT

    # --- events: the engine ------------------------------------------------------------------------------

    def adopt(self, endpoint: Address, now: float) -> Actions:
        """WireGuard was running before us and reaches the peer at ``endpoint``: believe it for a start."""
        self._active_at = now
        self._take(endpoint, now)
        self._wake(now)
        return self._done()

    def outgoing(self, now: float) -> Actions:
        """WireGuard sent packets towards the relay: the first of a session start discovery."""
        self._active_at = now
        if self.state is State.RELAYED:
            self._wake(now)
        return self._done()

    def polled(self, seen: PeerStatus, now: float, *, since: float) -> Actions:
        """What the engine said, asked at ``since``. ``seen.endpoint`` ``None`` = this peer's loopback one."""
        last, self._seen = self._seen, seen
        previous, self._polled_at = self._polled_at, now
        received = last is not None and seen.rx_bytes > last.rx_bytes
        sent = last is not None and seen.tx_bytes > last.tx_bytes
        if sent:
            self._evidence.sent_at = now
        if received or sent:
            self._active_at = now
            self._wake(now)
        if since >= self._changed_at:
            self._look_at_endpoint(seen.endpoint, now)
            # Bytes that were injected from the relay say nothing of the direct address.
            if (
                received
                and seen.endpoint == self.endpoint
                and self._evidence.relayed_at < previous - IN_FLIGHT
            ):
                self._flow(now)
        if self._evidence.unanswered_since is not None:
            self._judge(now)
        return self._done()

    # --- events: the peer --------------------------------------------------------------------------------

    def relayed(self, region: int, now: float) -> Actions:
        """WireGuard packets of the peer came by relay. Cheap when repeated: it is called for every batch."""
        self._active_at = self._evidence.relayed_at = self._evidence.relay_at = now
        self._heard_region = region
        if self.state is State.PROBING:
            return []
        if Timer.SLEEP in self._timers and now - self._reacted_at < REPLY_GAP:
            return []
        self._reacted_at = now
        self._wake(now)
        if self.endpoint is not None:  # the peer believes that it cannot reach us directly
            self._judge(now)
            self._ping_endpoint(now)
            if now - self._probed_at >= PROBE:
                self._probe(now)
        return self._done()

    def got_ping(self, ping: Ping, source: Address | None, region: int, now: float) -> Actions:
        """A disco ping, from ``source`` or (``None``) by relay: it is always answered the way it came."""
        if source is None:
            self._actions.append(SendRelay(region, Pong(ping.txid, (DERP_MAGIC_IP, region))))
            self._hear_relay(region, now)
        elif self.candidates.hear(source, ping.txid, now):
            self._actions.append(SendDirect(source, Pong(ping.txid, source)))
            self._ping_back(source, now)
        return self._done()

    def got_pong(self, pong: Pong, source: Address | None, region: int, now: float) -> Actions:
        """A disco pong; one that was not asked for is worth nothing."""
        sent = self._pings.answered(pong.txid, source, now)
        if sent is None:
            return self._done()
        if sent.number:
            self._actions.append(Answered(sent.number, now - sent.at, sent.to, region))
        if sent.to is None:
            self._evidence.relay_pong_at = now
            self._hear_relay(region, now)
        else:
            self._confirm(sent.to, now - sent.at, now)
        return self._done()

    def got_call(self, call: CallMeMaybe, region: int, now: float) -> Actions:
        """The peer opened its firewall for us and says where: ping all of it now."""
        self._hear_relay(region, now)
        self.candidates.call(call.endpoints, now)
        rushed, self._reacted_at = now - self._reacted_at < REPLY_GAP, now
        for candidate in self.candidates:
            if candidate.pinged_at is None or not rushed:
                self._ping(candidate, now)
        return self._done()

    def relay_gone(self, region: int) -> None:
        """The relay says that the peer is not there."""
        if region == self.region:
            self._evidence.forget_relay()

    # --- events: the rest of the world -------------------------------------------------------------------

    def netmap_changed(self, info: PeerInfo, now: float) -> Actions:
        """The server says something new of the peer. A working direct address stays in any case."""
        restarted = info.disco != self.info.disco and not info.disco.is_zero
        can_call = self.region == 0 and info.home != 0
        self.info = info
        self.candidates.name(info.endpoints, now)
        if restarted:
            self._pings.clear()
            self.candidates.forget_probes()
            self._banned, self._evidence.unanswered_since = None, None
            self._ping_endpoint(now)
        if self.is_active(now) and self.state is not State.DIRECT:
            if can_call:
                self._probe(now)
            else:
                self._ping_new(now)
        return self._done()

    def link_changed(self, now: float) -> Actions:
        """This host's network changed: nothing that was measured holds, and nothing vouches any more."""
        self.candidates.forget_probes()
        self._banned, self._rounds = None, 0
        self._evidence.forget_direct()
        if self.endpoint is not None:
            self._doubt(now)
        elif self.state is State.PROBING:
            self._probe(now)
        return self._done()

    def ping(self, number: int, now: float) -> Actions:
        """A person pings the peer: by the path that is trusted, else by every way. It begins a session.

        ``number`` is any but 0; the answers bear it.
        """
        self._active_at = now
        trusted = self.endpoint is not None and self._evidence.answers(now)
        if not trusted:
            self._ping_relay(now, number=number)
        for candidate in self.candidates:
            if not trusted or candidate.address == self.endpoint:
                self._ping(candidate, now, number=number)
        self._wake(now)
        return self._done()

    def tick(self, now: float) -> Actions:
        """Do what is due."""
        for timer in [timer for timer, due in self._timers.items() if due <= now]:
            if self._timers.get(timer, now + 1) <= now:  # an earlier one may have put it off
                del self._timers[timer]
                self._HANDLERS[timer](self, now)
        return self._done()

    # --- timers ------------------------------------------------------------------------------------------

    def _sleep(self, now: float) -> None:
        if self.is_active(now):
            self._timers[Timer.SLEEP] = self._active_at + ACTIVE
            return
        for timer in (Timer.HEARTBEAT, Timer.PROBE, Timer.SILENCE):
            self._timers.pop(timer, None)
        self._signal(Signal.ASLEEP)
        if self.state is State.DOUBTED:
            self._asks = 0
            self._ask_relay(now)

    def _heartbeat(self, now: float) -> None:
        if self.endpoint is None:
            return
        failing = self._evidence.unanswered_since is not None
        self._ping_endpoint(now)
        hurry = now - max(self._evidence.pong_at, self._changed_at) < RETRY_FOR
        self._timers[Timer.HEARTBEAT] = now + (RETRY if hurry else HEARTBEAT)
        if failing and Timer.ASK_RELAY not in self._timers:
            self._ask_relay(now)

    def _probe(self, now: float) -> None:
        """Ping every candidate whose turn it is, and ask the peer to do the same."""
        self._probed_at = now
        self._rounds += 1
        self.candidates.prune(now)
        for candidate in self.candidates:
            if candidate.pinged_at is None or now >= candidate.pinged_at + PROBE:
                self._ping(candidate, now)
        if self.region and not self.info.disco.is_zero:
            self._actions.append(CallPeer(self.region))
        if self.is_active(now):
            self._timers[Timer.PROBE] = now + (PROBE if self._rounds <= PROBE_ROUNDS else PROBE_SLOW)

    def _probe_if_worthwhile(self, now: float) -> None:
        """A working address is left in peace, save once a minute when it is slow."""
        if self.state is not State.DIRECT or self._latency() > GOOD_ENOUGH:
            self._probe(now)
        if self.state is State.DIRECT:
            self._timers[Timer.PROBE] = now + UPGRADE

    def _ask_relay(self, now: float) -> None:
        """Is the peer there on the relay? Asked while the direct address fails; when idle, a few times."""
        self._timers.pop(Timer.ASK_RELAY, None)
        if self.state is State.DIRECT and self._evidence.unanswered_since is None:
            return
        if self.endpoint is None or (not self.is_active(now) and self._asks >= MAX_IDLE_ASKS):
            return
        self._asks += 1
        self._ping_relay(now)
        self._timers[Timer.ASK_RELAY] = now + (ASK_RELAY if self._asks <= ASK_ROUNDS else ASK_SLOW)

    def _judge(self, now: float) -> None:
        """Weigh the evidence for and against the direct address."""
        self._timers.pop(Timer.JUDGE, None)
        if self.state is State.DIRECT:
            lapse = self._evidence.lapse(now)
            if now < lapse:
                self._timers[Timer.JUDGE] = lapse
            else:
                self._doubt(now)
        if self.state is State.DOUBTED:
            leave = self._evidence.leave_at(now, active=self.is_active(now), latency=self._latency())
            if leave is not None and leave <= now:
                self._leave(now)
            elif leave is not None:
                self._timers[Timer.JUDGE] = leave

    def _despair(self, now: float) -> None:
        """Nobody on the relay since the session began: perhaps only WireGuard is left of the peer's node."""
        if self.state is State.PROBING and self._evidence.relay_at < self._awake_at and self._last_good:
            self._signal(Signal.SILENT)
            self._set(self._last_good, now)
            self._doubt(now)

    _HANDLERS: dict[Timer, Callable[[Path, float], None]] = {
        Timer.SLEEP: _sleep,
        Timer.HEARTBEAT: _heartbeat,
        Timer.PROBE: _probe_if_worthwhile,
        Timer.JUDGE: _judge,
        Timer.ASK_RELAY: _ask_relay,
        Timer.SILENCE: _despair,
    }

    # --- evidence ----------------------------------------------------------------------------------------

    def _latency(self) -> float:
        return UNKNOWN_LATENCY if self.latency is None else self.latency

    def _hear_relay(self, region: int, now: float) -> None:
        self._evidence.relay_at, self._heard_region = now, region
        if self.endpoint is not None:
            self._judge(now)

    def _confirm(self, address: Address, latency: float, now: float) -> None:
        """A Pong came from ``address``."""
        candidate = self.candidates.keep(address, now)
        candidate.ponged_at, candidate.latency = now, latency
        if address == self._banned:
            self._banned = None
        if address != self.endpoint and self._prefers(candidate, now):
            self._set(address, now)
        if address == self.endpoint:
            self._evidence.pong_at, self._evidence.unanswered_since = now, None
            self._last_good = address
            self._settle(now)

    def _prefers(self, candidate: Candidate, now: float) -> bool:
        if self.endpoint is None or not self._evidence.answers(now):
            return True
        current = self.candidates.get(self.endpoint)
        return current is None or is_better(candidate, current)

    def _flow(self, now: float) -> None:
        """WireGuard received bytes while its endpoint was the direct one."""
        if self.endpoint is None or self._evidence.fails(now):
            return
        self._evidence.flow_at = now
        if self.state is State.DOUBTED:
            self._settle(now)

    def _look_at_endpoint(self, seen: Address | None, now: float) -> None:
        """Follow WireGuard where it roamed to (it heard the peer there), else put right what is wrong."""
        if seen == self.endpoint:
            return
        banned = seen == self._banned and now - self._evidence.relay_at < PATIENCE
        if seen is not None and is_usable(seen) and not banned:
            self._take(seen, now)
        else:
            self._set(self.endpoint, now)

    def _take(self, address: Address, now: float) -> None:
        candidate = self.candidates.keep(address, now)
        self._set(address, now)
        self._evidence.flow_at = now
        if candidate.ponged_at is not None:
            self._evidence.pong_at = candidate.ponged_at
        self._settle(now)
        self._ping(candidate, now)

    # --- changes -----------------------------------------------------------------------------------------

    def _signal(self, signal: Signal) -> None:
        self.state = TRANSITIONS.get((self.state, signal), self.state)

    def _set(self, endpoint: Address | None, now: float) -> None:
        if endpoint != self.endpoint:
            self._evidence.forget_direct()
        self.endpoint, self._changed_at = endpoint, now
        self._actions.append(UseRelay() if endpoint is None else UseDirect(endpoint))

    def _settle(self, now: float) -> None:
        """The direct address is vouched for."""
        was = self.state
        self._signal(Signal.CONFIRMED)
        self._rounds = self._asks = 0
        for timer in (Timer.ASK_RELAY, Timer.SILENCE):
            self._timers.pop(timer, None)
        self._timers[Timer.JUDGE] = self._evidence.lapse(now)
        if self.is_active(now):
            self._timers[Timer.HEARTBEAT] = now + HEARTBEAT
            if was is not State.DIRECT:
                self._timers[Timer.PROBE] = now + UPGRADE

    def _doubt(self, now: float) -> None:
        """Nothing vouches for the direct address: ask it, every other one, and the relay."""
        self._signal(Signal.LAPSED)
        self._evidence.doubted_at, self._asks = now, 0
        if self.is_active(now):
            self._ping_endpoint(now)
            self._probe(now)
            self._timers[Timer.HEARTBEAT] = now + RETRY
        self._ask_relay(now)

    def _leave(self, now: float) -> None:
        """Back to the relay; what still comes in from an address that failed does not lure us back."""
        if self._evidence.unanswered_since is not None:
            self._banned = self.endpoint
        self._signal(Signal.RELAY_LIVES)
        self._set(None, now)
        for timer in (Timer.HEARTBEAT, Timer.ASK_RELAY, Timer.JUDGE):
            self._timers.pop(timer, None)
        if not self.is_active(now):
            self._signal(Signal.ASLEEP)

    def _wake(self, now: float) -> None:
        """A session begins, unless one is on."""
        if self.state is not State.RELAYED and Timer.SLEEP in self._timers:
            return
        self._timers[Timer.SLEEP] = self._active_at + ACTIVE
        self._awake_at, self._rounds = now, 0
        self._signal(Signal.AWAKE)
        if self.state is State.DIRECT:
            self._timers.setdefault(Timer.HEARTBEAT, now)
            self._timers.setdefault(Timer.PROBE, now + UPGRADE)
        elif self.state is State.DOUBTED:
            self._doubt(now)
        else:
            self._probe(now)
            self._ping_relay(now)
            self._timers[Timer.SILENCE] = now + SILENCE

    # --- pings -------------------------------------------------------------------------------------------

    def _ping(self, candidate: Candidate, now: float, *, number: int = 0) -> None:
        ping = self._new_ping(candidate.address, now, number)
        if ping is None:
            return
        candidate.pinged_at = now
        if candidate.address == self.endpoint and self._evidence.unanswered_since is None:
            self._evidence.unanswered_since = now
        self._actions.append(SendDirect(candidate.address, ping))

    def _ping_relay(self, now: float, *, number: int = 0) -> None:
        if self.region and (ping := self._new_ping(None, now, number)):
            self._actions.append(SendRelay(self.region, ping))

    def _new_ping(self, to: Address | None, now: float, number: int) -> Ping | None:
        return None if self.info.disco.is_zero else self._pings.new(to, self.own_key, now, number=number)

    def _ping_endpoint(self, now: float) -> None:
        if self.endpoint is not None:
            self._ping(self.candidates.keep(self.endpoint, now), now)

    def _ping_new(self, now: float) -> None:
        for candidate in self.candidates:
            if candidate.pinged_at is None:
                self._ping(candidate, now)

    def _ping_back(self, source: Address, now: float) -> None:
        """A ping got through from there: try the way back at once when a path is looked for."""
        candidate = self.candidates.get(source)
        if candidate is None or self.state is State.DIRECT or not self.is_active(now):
            return
        if candidate.pinged_at is None or now - candidate.pinged_at >= REPLY_GAP:
            self._ping(candidate, now)

    def _done(self) -> Actions:
        actions, self._actions = self._actions, []
        return actions
