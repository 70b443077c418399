"""Where packets cross between the public UDP port and WireGuard in its namespace.

This process owns the public port. What is STUN or disco stays here; WireGuard's packets go in through one
socket of the namespace, from the loopback address that stands for their sender (see ``lanes``);
what WireGuard sends to such an address comes out there. So it plays both parts that magicsock knows: the
port (:class:`client.magicsock.rawport.RawPort`) and the shuttle of relayed packets
(:class:`client.magicsock.shuttle.Shuttle`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from client.errors import SetupError
from client.magicsock.shuttle import NO_SEGMENTATION, UDP_SEGMENT, enlarge_buffers, segments
from client.magicsock.udp import MAX_UDP_PAYLOAD
from client.net.marks import mark_socket
from client.rootless.lanes import Address, Lane, Lanes
from wire.keys import NodePublic

LOOPBACK = "127.0.0.1"
IP_PKTINFO = 8
SEGMENT_BYTES = struct.Struct("=H")
MAX_DATAGRAM_BYTES = 65_535
MAX_PACKET_BYTES = 2048  # what WireGuard sends: the tunnel's MTU and its own headers
MAX_DATAGRAMS_A_ROUND = 64
ANCILLARY_BYTES = socket.CMSG_SPACE(12)
# The first four bytes of WireGuard's messages: a type, and three zeros (WireGuard's paper, §5.4).
WIREGUARD = frozenset(bytes([kind, 0, 0, 0]) for kind in (1, 2, 3, 4))

log = logging.getLogger(__name__)


class Crossing:
    """``inner`` is a UDP socket of the namespace, not yet bound; WireGuard listens there on ``port`` already.

    ``on_packet(payload, from)`` gets STUN and disco, and of what comes for WireGuard the first from where it
    never answered; ``on_outgoing(peer, packets)`` gets what is for a relay.
    ``talked``: the peers that were removed again after WireGuard had sent them something.
    """

    def __init__(
        self,
        inner: socket.socket,
        port: int,
        *,
        mark: int,
        on_packet: Callable[[bytes, Address], None],
        on_outgoing: Callable[[NodePublic, list[bytes]], None],
    ) -> None:
        self.lanes = Lanes()
        self.talked: set[NodePublic] = set()
        self._inner = inner
        self._wireguard = (LOOPBACK, port)
        self._port = port
        self._mark = mark
        self._on_packet = on_packet
        self._on_outgoing = on_outgoing
        self._outer: dict[socket.AddressFamily, socket.socket] = {}
        self._segmentation = True
        # On the loopback interface only: what comes out of the tunnel never gets here.
        inner.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        inner.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        enlarge_buffers(inner)
        inner.bind(("", 0))
        self._inner_port = int(inner.getsockname()[1])

    # --- the port ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the public port on the running loop; raises ``SetupError`` when another program has it."""
        loop = asyncio.get_running_loop()
        try:
            self._outer[socket.AF_INET] = self._open(socket.AF_INET)
            with suppress(OSError):  # a host without IPv6
                self._outer[socket.AF_INET6] = self._open(socket.AF_INET6)
        except OSError as error:
            raise SetupError(f"cannot listen on UDP port {self._port}: {error.strerror}") from error
        for sock in self._outer.values():
            loop.add_reader(sock, self._from_outside, sock)
        loop.add_reader(self._inner, self._from_wireguard)

    def send(self, packet: bytes, to: Address) -> bool:
        """One datagram from the public port; ``False`` when the host has no way there (now)."""
        sock = self._outer.get(_family(to))
        if sock is None or len(packet) > MAX_UDP_PAYLOAD:
            return False
        try:
            return sock.sendto(packet, to) == len(packet)
        except OSError:
            return False

    def close(self) -> None:
        """Closing twice is fine."""
        if self._inner.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._inner)
            self._inner.close()
        for sock in self._outer.values():
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._outer.clear()

    def _open(self, family: socket.AddressFamily) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            enlarge_buffers(sock)
            mark_socket(sock, self._mark)
            sock.bind(("", self._port))
        except BaseException:
            sock.close()
            raise
        return sock

    # --- the shuttle -------------------------------------------------------------------------------------

    def add(self, peer: NodePublic) -> Address:
        """The endpoint inside that means "relay" for this peer."""
        return self.lanes.of_peer(peer).host, self._inner_port

    def remove(self, peer: NodePublic) -> None:
        lane = self.lanes.remove(peer)
        if lane is not None and (lane.spoken_to or (lane.direct is not None and lane.direct.spoken_to)):
            self.talked.add(peer)

    def rekey(self, old: NodePublic, new: NodePublic) -> None:
        self.lanes.rekey(old, new)

    def address_of(self, peer: NodePublic) -> Address:
        """Raises :class:`KeyError` for a peer that was not added."""
        return self.lanes.by_peer[peer].host, self._inner_port

    def set_direct(self, peer: NodePublic, endpoint: Address | None) -> None:
        """What comes through the relay passes for coming from there; ``None`` = for what it is."""
        if lane := self.lanes.by_peer.get(peer):
            lane.direct = None if endpoint is None else self.lanes.of_host(endpoint)

    def inject(self, peer: NodePublic, packets: Sequence[bytes]) -> None:
        """Relay to WireGuard. What the socket cannot take is dropped, as any network would."""
        if lane := self.lanes.by_peer.get(peer):
            self._to_wireguard(lane.direct or lane, packets)

    # --- endpoints, as the engine is told them and tells them ----------------------------------------------

    def inside(self, endpoint: Address) -> Address:
        """What WireGuard is told instead of ``endpoint``."""
        lane = self.lanes.at(endpoint[0]) if endpoint[1] == self._inner_port else None
        return (lane or self.lanes.of_host(endpoint)).host, self._inner_port

    def outside(self, endpoint: Address) -> Address | None:
        """What is meant by an endpoint of WireGuard's; a relay's lane stands for itself."""
        lane = self.lanes.at(endpoint[0])
        if lane is None or lane.outside is None:
            return endpoint if lane else None
        return lane.outside

    def in_use(self, endpoints: Iterable[Address]) -> None:
        """WireGuard's endpoints now: lanes of other hosts, unless a path wants them, may be forgotten."""
        seen = [lane for host, _ in endpoints if (lane := self.lanes.at(host))]
        wanted = [lane.direct for lane in self.lanes.by_peer.values() if lane.direct is not None]
        self.lanes.use([*seen, *wanted])

    # --- inwards -----------------------------------------------------------------------------------------

    def _from_outside(self, sock: socket.socket) -> None:
        """Drain a round, so that a burst of one sender goes in by one call."""
        runs: dict[Lane, list[bytes]] = {}
        by_outside, receive = self.lanes.by_outside, sock.recvfrom
        with suppress(BlockingIOError):
            for _ in range(MAX_DATAGRAMS_A_ROUND):
                packet, source = receive(MAX_DATAGRAM_BYTES)
                if packet[:4] in WIREGUARD:
                    address = source[:2]
                    lane = by_outside.get(address) or self.lanes.of_host(_with_scope(source))
                    runs.setdefault(lane, []).append(packet)
                else:
                    self._on_packet(packet, _with_scope(source))
        for lane, packets in runs.items():
            self._to_wireguard(lane, packets)
            if not lane.spoken_to and lane.outside is not None:
                self._on_packet(packets[0], lane.outside)  # nobody who ever got an answer

    def _to_wireguard(self, lane: Lane, packets: Sequence[bytes]) -> None:
        source = (socket.IPPROTO_IP, IP_PKTINFO, lane.source)
        with suppress(OSError):
            for run in segments([packet for packet in packets if len(packet) <= MAX_UDP_PAYLOAD]):
                self._send_run(self._inner, run, [source], self._wireguard)

    # --- outwards ----------------------------------------------------------------------------------------

    def _from_wireguard(self) -> None:
        runs: dict[Lane, list[bytes]] = {}
        by_inside, receive = self.lanes.by_inside, self._inner.recvmsg
        with suppress(BlockingIOError):
            for _ in range(MAX_DATAGRAMS_A_ROUND):
                packet, ancillary, _, _ = receive(MAX_PACKET_BYTES, ANCILLARY_BYTES)
                if lane := by_inside.get(ancillary[0][2][8:]):
                    runs.setdefault(lane, []).append(packet)
        for lane, packets in runs.items():
            lane.spoken_to = True
            if lane.outside is not None:
                self._to_host(lane.outside, packets)
            elif lane.peer is not None:
                self._on_outgoing(lane.peer, packets)

    def _to_host(self, host: Address, packets: Sequence[bytes]) -> None:
        if sock := self._outer.get(_family(host)):
            with suppress(OSError):  # no way there now: WireGuard tries again
                for run in segments(packets):
                    self._send_run(sock, run, [], host)

    # --- batches -----------------------------------------------------------------------------------------

    def _send_run(
        self,
        sock: socket.socket,
        run: Sequence[bytes],
        ancillary: list[tuple[int, int, bytes]],
        to: Address,
    ) -> None:
        if len(run) > 1 and self._segmentation:
            size = (socket.IPPROTO_UDP, UDP_SEGMENT, SEGMENT_BYTES.pack(len(run[0])))
            try:
                sock.sendmsg(run, [*ancillary, size], 0, to)
                return
            except OSError as error:
                if error.errno not in NO_SEGMENTATION:
                    raise
                log.info("no UDP segmentation offload here (%s); sending one by one", error.strerror)
                self._segmentation = False
        for packet in run:
            sock.sendmsg([packet], ancillary, 0, to)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _with_scope(source: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    """A link-local address is only worth something with its interface."""
    scope = source[3] if len(source) > 3 else 0
    return (f"{source[0]}%{scope}" if scope else source[0]), source[1]
