"""Magicsock: how this node reaches its peers, by whichever path is best now. The facade the daemon uses.

Paths decide, this package acts: it brings events to each peer's path (packets: :mod:`reception`; the engine's
counters and netmaps: here) and carries out what the path answers (:mod:`deeds`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from client.engine.base import Engine
from client.errors import ClientError, PeerNotFound, PingTimeout, SetupError
from client.magicsock.actions import Answered
from client.magicsock.candidates import is_usable
from client.magicsock.deeds import Deeds
from client.magicsock.derp import DerpPool
from client.magicsock.endpoints import Address, Endpoint
from client.magicsock.netcheck import Report
from client.magicsock.path import Path
from client.magicsock.peers import Peer, Peers, is_fresh, peer_info, tailnet_hosts, usable_nodes
from client.magicsock.ports import MakePorts, host_ports
from client.magicsock.reasons import explained
from client.magicsock.reception import Reception
from client.magicsock.results import PathStatus, PingResult
from client.magicsock.states import PeerInfo
from client.magicsock.steering import UNSET, Steering
from client.magicsock.strangers import Strangers
from client.magicsock.surroundings import NO_PORTALS, Surroundings
from client.net.portmap.mapper import PortMapper, make_mapper
from client.wireguard import EngineStatus
from wire.control import NetInfo
from wire.keys import DiscoPrivate, NodePrivate, NodePublic
from wire.netmap import NetMap, Node
from wire.paths import Reason

log = logging.getLogger(__name__)

POLL_ACTIVE = 1.0  # between looks at the engine while a peer is direct or a session is on
POLL_IDLE = 5.0
POLL_MOVED = 0.25  # after an endpoint was set, to see whether it stays
RETRY_SECONDS = 1.0  # before a part that failed goes on
KEEP_HANDSHAKE = 180.0  # WireGuard's own bound (REJECT_AFTER_TIME): a younger handshake carries packets


def wall_clock() -> float:
    """Unix time, to compare with WireGuard's handshakes."""
    return datetime.now(UTC).timestamp()


class Magicsock:
    """Owns the raw port, the relay connections, the shuttle and every peer's path. One loop, one thread.

    ``on_endpoints`` and ``on_net_info`` are called with what the next lite update should say; ``greet`` with
    a peer with whom WireGuard should begin a session now.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        node_key: NodePrivate,
        disco_key: DiscoPrivate,
        listen_port: int,
        mark: int,
        on_endpoints: Callable[[tuple[Endpoint, ...]], None],
        on_net_info: Callable[[NetInfo], None],
        greet: Callable[[Node], None],
        make_ports: MakePorts = host_ports,
        entropy: Callable[[int], bytes] = os.urandom,
        wall: Callable[[], float] = wall_clock,
        make_mapper: Callable[..., PortMapper] = make_mapper,
    ) -> None:
        self._disco_key = disco_key
        self._own_key = node_key.public()
        self._entropy = entropy
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._peers = Peers()
        self._netmap: NetMap | None = None
        self._greet = greet
        self._strangers = Strangers()
        self._pings = 0
        self._look = asyncio.Event()
        self._raw, self._shuttle = make_ports(
            listen_port, mark=mark, on_packet=self._on_udp, on_outgoing=self._on_outgoing
        )
        self._pool = DerpPool(
            node_key=node_key,
            mark=mark,
            on_packets=self._on_derp,
            on_gone=self._on_gone,
            on_change=self._on_relay_change,
        )
        self._steering = Steering(engine, self._shuttle, on_moved=self._look.set)
        self._surroundings = Surroundings(
            send=self._raw.send,
            pool=self._pool,
            listen_port=listen_port,
            tunnel=engine.interface,
            mark=mark,
            entropy=entropy,
            is_active=self._any_active,
            on_endpoints=on_endpoints,
            on_net_info=on_net_info,
            on_measured=self._on_measured,
            make_mapper=partial(make_mapper, listen_port, mark, node_key),
        )
        self._deeds = Deeds(
            peers=self._peers,
            raw=self._raw,
            pool=self._pool,
            steering=self._steering,
            surroundings=self._surroundings,
            disco_key=disco_key,
            entropy=entropy,
        )
        self._reception = Reception(
            peers=self._peers,
            shuttle=self._shuttle,
            pool=self._pool,
            deeds=self._deeds,
            surroundings=self._surroundings,
            disco_key=disco_key,
            on_heard=self._heard,
        )
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, once the engine has its key, its port and its link up. Raises ``SetupError``."""
        try:
            self._raw.start()
        except SetupError:
            await self.close()
            raise
        self._running = asyncio.create_task(self._run(), name="magicsock")

    async def close(self) -> None:
        """End every task and connection; WireGuard's own endpoints stay as they are."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        self._surroundings.close()
        self._reception.close()
        await self._surroundings.mapper.release()
        for peer in self._peers:
            self._abandon(peer)
        await self._pool.close()
        self._shuttle.close()
        self._raw.close()

    # --- what the daemon says ----------------------------------------------------------------------------

    async def set_netmap(self, netmap: NetMap) -> None:
        """Make WireGuard's peers, the relays and the paths follow ``netmap``. Raises ``EngineError``."""
        old, self._netmap = self._netmap, netmap
        if old is None or old.derp_map != netmap.derp_map:
            self._pool.set_map(netmap.derp_map)
        self._surroundings.looks_for_portals = NO_PORTALS not in netmap.node.cap_map
        self._surroundings.set_map(netmap.derp_map, home=netmap.node.home_derp)
        new = self._reconcile(netmap)
        if new:
            self._take_over(await self._steering.status(), new)
        await self._steering.set_peers(list(self._peers))
        self._reception.peers_came()

    async def set_node_key(self, key: NodePrivate) -> None:
        """Reconnect the relays under a rotated key (the engine has it already)."""
        self._own_key = key.public()
        for peer in self._peers:
            peer.path.own_key = self._own_key
        self._pool.set_node_key(key)

    def link_changed(self) -> None:
        """The host's addresses or routes changed: look again at everything."""
        self._pool.link_changed()
        self._surroundings.link_changed()
        for peer in self._peers:
            self._deeds.do(peer, peer.path.link_changed(self._now()))

    def set_connected(self, connected: bool) -> None:
        """Whether the server hears us: while it does not, the home relay stays (peers would not know)."""
        self._surroundings.connected = connected

    def set_control_url(self, url: str) -> None:
        """The server may tell whether there is a captive portal."""
        self._surroundings.control_url = url

    @property
    def behind_portal(self) -> bool:
        """Whether this network wants somebody to sign in first."""
        report = self._surroundings.report
        return report is not None and report.captive_portal is True

    # --- what the daemon asks ----------------------------------------------------------------------------

    async def ping(self, node_id: int, timeout: float) -> PingResult:  # noqa: ASYNC109 - it is what a ping is
        """Ask the peer's daemon by disco. Raises ``PeerNotFound``, ``PingTimeout``."""
        peer = self._peers.by_id(node_id)
        if peer is None:
            raise PeerNotFound(f"no peer that could be pinged has the ID {node_id}")
        answer: asyncio.Future[Answered] = self._loop.create_future()
        self._pings += 1
        number = self._pings
        peer.pings[number] = answer
        try:
            self._deeds.do(peer, peer.path.ping(number, self._now()))
            async with asyncio.timeout(timeout):
                answered = await answer
        except TimeoutError:
            raise PingTimeout(f"no answer from {peer.node.name.rstrip('.')} in {timeout:g} s") from None
        finally:
            del peer.pings[number]
        if answered.address is not None:
            return PingResult(latency=answered.latency, endpoint=answered.address)
        region = answered.region
        return PingResult(
            latency=answered.latency,
            derp_region=region,
            derp_code=self._region_code(region),
            reason=self._reason(peer),
        )

    def path_status(self, node_id: int) -> PathStatus:
        """Raises ``PeerNotFound``."""
        peer = self._peers.by_id(node_id)
        if peer is None:
            if self._netmap is None or node_id not in self._netmap.peers:
                raise PeerNotFound(f"no peer has the ID {node_id}")
            return PathStatus(reason=Reason.KEY_EXPIRED)
        return PathStatus(
            current=peer.path.endpoint,
            latency=peer.path.latency or 0.0,
            relay_region=peer.path.region,
            relay_code=self._region_code(peer.path.region),
            active=peer.path.is_active(self._now()),
            rx_bytes=peer.status.rx_bytes,
            tx_bytes=peer.status.tx_bytes,
            last_handshake=peer.status.last_handshake,
            reason=self._reason(peer),
        )

    def live_paths(self) -> dict[int, PathStatus]:
        """Those of the peers that this node talks to now, by node ID."""
        now = self._now()
        return {
            peer.node.id: self.path_status(peer.node.id) for peer in self._peers if peer.path.is_active(now)
        }

    def relayed_bytes(self) -> tuple[int, int]:
        """What came and what went through relays since the start."""
        return self._reception.relayed_in, self._reception.relayed_out

    async def netcheck(self) -> Report:
        """Measure the network now, in every respect."""
        return await self._surroundings.netcheck()

    def _reason(self, peer: Peer) -> Reason | None:
        reason = peer.path.reason(self._now())
        return explained(reason, self._surroundings.report, peer.path.candidates.named())

    def _region_code(self, region: int) -> str:
        known = self._netmap.derp_map.regions.get(region) if self._netmap else None
        return known.region_code if known else ""

    # --- tasks -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            surroundings = self._surroundings
            for part in (self._watch_engine, self._steering.run, surroundings.run, surroundings.mapper.run):
                group.create_task(_keep_going(part))

    async def _watch_engine(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_ACTIVE if self._any_awake() else POLL_IDLE):
                    await self._look.wait()
            if self._look.is_set():
                self._look.clear()
                await asyncio.sleep(POLL_MOVED)
            await self._look_at_engine()

    async def _look_at_engine(self) -> None:
        since = self._now()
        status = await self._steering.status()
        for peer in list(self._peers):
            if (seen := status.peers.get(peer.key)) is None:
                continue
            peer.status = seen
            endpoint = self._steering.seen_by_path(peer.key, seen)
            if endpoint is not None and endpoint[0] in self._peers.tailnet:
                endpoint = UNSET  # WireGuard inside itself: to be put right
            as_path_sees = replace(seen, endpoint=endpoint)
            self._deeds.do(peer, peer.path.polled(as_path_sees, self._now(), since=since))
        if self._strangers.expects:
            for peer in self._strangers.due(self._peers, self._now()):
                self._greet(peer.node)

    def _any_active(self) -> bool:
        now = self._now()
        return any(peer.path.is_active(now) for peer in self._peers)

    def _any_awake(self) -> bool:
        """An active session, or a direct one whose first packet nobody but the engine would see."""
        now = self._now()
        return self._strangers.expects or any(
            peer.path.endpoint is not None or peer.path.is_active(now) for peer in self._peers
        )

    # --- what its parts say: the reception is made last, of all that packets may concern ------------------

    def _on_udp(self, packet: bytes, source: Address) -> None:
        self._reception.udp(packet, source)

    def _on_derp(self, region: int, sender: NodePublic, packets: list[bytes]) -> None:
        self._reception.derp(region, sender, packets)

    def _on_outgoing(self, key: NodePublic, packets: list[bytes]) -> None:
        self._reception.outgoing(key, packets)

    def _heard(self, peer: Peer) -> None:
        """The peer may believe in a session that our WireGuard does not have."""
        if self._strangers.heard(peer, self._now()):
            self._look.set()

    def _on_gone(self, region: int, key: NodePublic, reason: int) -> None:
        if peer := self._peers.by_key(key):
            peer.path.relay_gone(region)

    def _on_measured(self) -> None:
        self._deeds.call_waiting()

    def _on_relay_change(self, region: int, answers: bool) -> None:
        self._surroundings.relay_changed(region, answers)

    # --- netmaps -----------------------------------------------------------------------------------------

    def _reconcile(self, netmap: NetMap) -> list[Peer]:
        """Bring the peers in line with the netmap; returns those that are new."""
        nodes, self._peers.tailnet = usable_nodes(netmap), tailnet_hosts(netmap)
        for peer in [peer for peer in self._peers if peer.node.id not in nodes]:
            self._peers.remove(peer.node.id)
            self._abandon(peer)
        new: list[Peer] = []
        for node in nodes.values():
            known = self._peers.by_id(node.id)
            if known is not None and known.node == node:
                continue
            peer = known or Peer(node, Path(own_key=self._own_key, entropy=self._entropy))
            if known is None:
                peer.since = self._now()
                self._peers.add(peer)
                new.append(peer)
            elif node.key != peer.key:
                self._shuttle.rekey(peer.key, node.key)
            peer.set_node(node)
            self._shuttle.add(node.key)
            self._tell_path(peer, peer_info(node, self._peers.tailnet))
        self._peers.index()
        return new

    def _tell_path(self, peer: Peer, info: PeerInfo) -> None:
        """A peer that has just joined may have a relay only now."""
        now, had_relay = self._now(), bool(peer.path.region)
        self._deeds.do(peer, peer.path.netmap_changed(info, now))
        region = peer.path.region
        if region and not had_relay and (handshake := peer.handshake.copy(now)):
            self._pool.send(region, peer.key, [handshake])

    def _take_over(self, status: EngineStatus, new: list[Peer]) -> None:
        """Peers that WireGuard knew before us: what is direct and alive stays, the rest is relayed by us."""
        wall, now = self._wall(), self._now()
        for peer in new:
            if (seen := status.peers.get(peer.key)) is None:
                continue
            peer.status = seen
            direct = seen.endpoint
            outside = direct and is_usable(direct) and direct[0] not in self._peers.tailnet
            if outside and direct and is_fresh(seen, wall, KEEP_HANDSHAKE):
                self._deeds.do(peer, peer.path.adopt(direct, now))
            else:
                self._steering.steer(peer)

    def _abandon(self, peer: Peer) -> None:
        self._deeds.forget(peer)
        for answer in peer.pings.values():
            if not answer.done():
                answer.set_exception(PeerNotFound(f"{peer.node.name.rstrip('.')} left the network"))
        self._steering.forget(peer)
        self._strangers.forget(peer)

    def _now(self) -> float:
        return self._loop.time()


async def _keep_going(part: Callable[[], Awaitable[None]]) -> None:
    """A part that fails goes on: one bad moment of the engine must not end all paths.

    The same complaint is made once.
    """
    said = ""
    while True:
        try:
            await part()
        except ClientError as error:
            log.log(logging.DEBUG if str(error) == said else logging.WARNING, "%s", error)
            said = str(error)
        except Exception:  # the edge of a task
            log.exception("magicsock: a part failed")
        await asyncio.sleep(RETRY_SECONDS)


__all__ = ["Magicsock", "PathStatus", "PingResult"]
