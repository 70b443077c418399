"""Relayed packets between WireGuard and the relay: one loopback socket, and so one endpoint, per peer.

While a peer is relayed, its WireGuard endpoint is that socket. WireGuard roams: it sends to wherever the last
valid packet came from. So once a peer is direct, packets that still come through the relay must not be
injected from the loopback endpoint, or the tunnel snaps back to the relay: they are injected as raw packets
that bear the direct endpoint as their source and our own address as their destination.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from client.errors import SetupError
from client.magicsock.routes import own_address
from client.magicsock.udp import MAX_UDP_PAYLOAD, Address, ipv4_packet, ipv6_packet
from client.net.marks import mark_socket
from wire.keys import NodePublic

LOOPBACK = "127.0.0.1"
UDP_SEGMENT = 103
IPV6_HDRINCL = 36
MAX_SEGMENTS = 40
MAX_DATAGRAM_BYTES = 65_535
MAX_DATAGRAMS_A_ROUND = 64
# What kernels without UDP_SEGMENT (before 4.18) or devices without checksumming answer.
NO_SEGMENTATION = frozenset({errno.EINVAL, errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT})
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
BUFFER_BYTES = 4 * 1024 * 1024

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Lane:
    """A peer's loopback socket; ``direct`` is the source of injected packets once the peer is direct."""

    peer: NodePublic
    sock: socket.socket
    address: Address
    direct: Address | None = None


def segments(packets: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut ``packets`` into runs for one UDP_SEGMENT send: equal sizes, only a run's last may be shorter."""
    start = 0
    while start < len(packets):
        size = total = len(packets[start])
        end = start + 1
        while (
            end < len(packets)
            and end - start < MAX_SEGMENTS
            and len(packets[end - 1]) == size
            and 0 < len(packets[end]) <= size
            and total + len(packets[end]) <= MAX_UDP_PAYLOAD
        ):
            total += len(packets[end])
            end += 1
        yield packets[start:end]
        start = end


class Shuttle:
    """``on_outgoing(peer, packets)`` gets what WireGuard sends to a peer's loopback endpoint, in batches."""

    def __init__(
        self, *, wireguard_port: int, mark: int, on_outgoing: Callable[[NodePublic, list[bytes]], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = wireguard_port
        self._mark = mark
        self._on_outgoing = on_outgoing
        self._lanes: dict[NodePublic, _Lane] = {}
        self._raw: dict[socket.AddressFamily, socket.socket] = {}
        self._segmentation = True
        _allow_many_sockets()

    def add(self, peer: NodePublic) -> Address:
        """The endpoint that means "relay" for this peer; the same one when called again.

        Raises ``SetupError`` when the process may open no more sockets.
        """
        if peer not in self._lanes:
            sock = self._open_lane()
            lane = _Lane(peer, sock, sock.getsockname())
            self._lanes[peer] = lane
            self._loop.add_reader(sock, self._outgoing, lane)
        return self._lanes[peer].address

    def remove(self, peer: NodePublic) -> None:
        """Nothing happens for a peer that is not there."""
        if lane := self._lanes.pop(peer, None):
            self._loop.remove_reader(lane.sock)
            lane.sock.close()

    def rekey(self, old: NodePublic, new: NodePublic) -> None:
        """The same socket under a peer's new key."""
        if old == new or old not in self._lanes:
            return
        self.remove(new)
        lane = self._lanes.pop(old)
        lane.peer = new
        self._lanes[new] = lane

    def address_of(self, peer: NodePublic) -> Address:
        """Raises :class:`KeyError` for a peer that was not added."""
        return self._lanes[peer].address

    def inject(self, peer: NodePublic, packets: Sequence[bytes]) -> None:
        """Relay to WireGuard: from the loopback endpoint, or from the direct one (:meth:`set_direct`).

        What the socket cannot take is dropped, as any network would.
        """
        lane = self._lanes.get(peer)
        packets = [packet for packet in packets if len(packet) <= MAX_UDP_PAYLOAD]
        if lane is None:
            return
        with suppress(OSError):
            if lane.direct is not None:
                self._inject_as(lane.direct, packets)
            else:
                for run in segments(packets):
                    self._inject_run(lane.sock, run)

    def set_direct(self, peer: NodePublic, endpoint: Address | None) -> None:
        """From now on injected packets bear this source; ``None`` = the loopback endpoint again.

        The order matters: going direct, call this first and set WireGuard's endpoint after it; going back to
        the relay likewise first this with ``None``, then the endpoint.
        """
        if lane := self._lanes.get(peer):
            lane.direct = endpoint

    def close(self) -> None:
        for peer in list(self._lanes):
            self.remove(peer)
        for sock in self._raw.values():
            sock.close()
        self._raw.clear()

    # --- WireGuard to relay ------------------------------------------------------------------------------

    def _open_lane(self) -> socket.socket:
        """Connected to WireGuard's port: nobody else on this host can send into the tunnel's relay path."""
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        except OSError as error:
            raise SetupError(
                f"cannot open a socket for a peer ({error.strerror}); raise trenzad's limit of open files"
            ) from error
        sock.setblocking(False)
        enlarge_buffers(sock)
        sock.bind((LOOPBACK, 0))
        sock.connect((LOOPBACK, self._port))
        return sock

    def _outgoing(self, lane: _Lane) -> None:
        """Drain until there is no more, up to a round's bound, so that many packets make one relay write."""
        receive, packets = lane.sock.recv, list[bytes]()
        with suppress(BlockingIOError, ConnectionRefusedError):
            while len(packets) < MAX_DATAGRAMS_A_ROUND:
                packets.append(receive(MAX_DATAGRAM_BYTES))
        if packets:
            self._on_outgoing(lane.peer, packets)

    # --- relay to WireGuard ------------------------------------------------------------------------------

    def _inject_run(self, sock: socket.socket, run: Sequence[bytes]) -> None:
        if len(run) > 1 and self._segmentation:
            try:
                _send_segmented(sock, run)
                return
            except OSError as error:
                if error.errno not in NO_SEGMENTATION:
                    raise
                log.info("no UDP segmentation offload here (%s); sending one by one", error.strerror)
                self._segmentation = False
        for packet in run:
            sock.send(packet)

    def _inject_as(self, source: Address, packets: Sequence[bytes]) -> None:
        """To our own address on the way to ``source``, as if the packets had come that way.

        WireGuard remembers where a peer's packets arrive and answers from there: sent to 127.0.0.1 they would
        make it answer through ``lo``, which leads nowhere. The address is asked for each time: were it not
        ours any more, the packets would leave the host.
        """
        own = own_address(source[0], self._mark), self._port
        if ":" in own[0]:
            raw, build = self._raw_socket(socket.AF_INET6), ipv6_packet
        else:
            raw, build = self._raw_socket(socket.AF_INET), ipv4_packet
        for packet in packets:
            raw.sendto(build(source, own, packet), (own[0], 0))

    def _raw_socket(self, family: socket.AddressFamily) -> socket.socket:
        """One for all peers, opened at the first need."""
        if family not in self._raw:
            sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            sock.setblocking(False)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
            mark_socket(sock, self._mark)
            self._raw[family] = sock
        return self._raw[family]


def _allow_many_sockets() -> None:
    """Every peer is a socket: take what the host allows at most."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _send_segmented(sock: socket.socket, run: Sequence[bytes]) -> None:
    """One system call for a whole run; the kernel cuts it up."""
    sock.sendmsg(run, [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", len(run[0])))])


def enlarge_buffers(sock: socket.socket) -> None:
    """Forced where CAP_NET_ADMIN allows it, else as far as the host's limit goes."""
    for forced, asked in ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, asked, BUFFER_BYTES)
