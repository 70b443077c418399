"""The hot path: frames from every readable client to their destinations, one write each and round.

Each read lands in the next region of one arena, after that client's partial frame. A SendPacket's 37-byte
head (type, length, destination) is the key of a small cache and is overwritten in place by a RecvPacket's
(type, length, source), so a packet is never copied; neighbouring frames to one destination become one slice.
At the end of the loop's round every destination gets one ``sendmsg``. What it does not take is queued.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from relay.connection import KEYED_HEAD, LEFT, Buffer, Connection, Route, frames_of
from relay.limits import (
    ARENA_BYTES,
    GONE_BURST,
    GONE_PER_SECOND,
    KEEPALIVE_SECONDS,
    KEEPALIVE_SPREAD,
    MAX_CONNECTIONS_PER_KEY,
    MAX_CONTROL_FRAME,
    MAX_IOV,
    MAX_ROUTES_CACHED,
    MAX_SENT_TO,
    MESH_WRITE_STALL_SECONDS,
    READ_BYTES,
    SEND_BYTES,
    WRITE_STALL_SECONDS,
)
from wire.derp import HEADER_BYTES as FRAME_HEAD
from wire.derp import (
    MAX_PACKET_BYTES,
    MAX_PING_BYTES,
    PING_BYTES,
    FrameType,
    PeerGoneReason,
    PeerPresent,
    PeerPresentFlags,
    encode_frame,
    forward_packet_frame,
    peer_gone_frame,
    ping_frame,
    pong_frame,
    recv_packet_frame,
)
from wire.disco import MAGIC as DISCO_MAGIC
from wire.errors import WireError
from wire.keys import KEY_BYTES, NodePublic

logger = logging.getLogger("trenza.relay")

DRAIN_STEP_SECONDS = 0.02
KEYED = struct.Struct(f"{KEYED_HEAD}s")
SEND = int(FrameType.SEND_PACKET)
RECV = int(FrameType.RECV_PACKET)
KNOWN = frozenset(int(kind) for kind in FrameType)
KEEPALIVE_FRAME = encode_frame(FrameType.KEEP_ALIVE)
LINK_PING = ping_frame(bytes(PING_BYTES))  # what a client may send; only its acknowledgement by TCP matters
MIN_FORWARD_BYTES = 2 * KEY_BYTES
MAX_KEYED_BYTES = KEY_BYTES + MAX_PACKET_BYTES


@dataclass(slots=True)
class Counters:
    """What the relay has done since it started; sizes in bytes of frames."""

    packets: int = 0
    packets_forwarded_out: int = 0
    packets_forwarded_in: int = 0
    bytes_in: int = 0
    dropped_queue: int = 0
    dropped_unknown: int = 0
    accepted: int = 0
    refused: int = 0
    failed_handshakes: int = 0
    closed_stalled: int = 0
    closed_protocol: int = 0

    @property
    def drops(self) -> int:
        return self.dropped_queue + self.dropped_unknown


class Switch:
    """All admitted clients of this relay. ``rate``: bytes a second of each client, 0 = unlimited."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, rate: int = 0, burst: int = 0) -> None:
        self._loop = loop
        self._rate = rate
        self._burst = burst
        self._arena = bytearray(ARENA_BYTES + KEYED_HEAD)  # a head that is cut off can still be looked at
        self._view = memoryview(self._arena)
        self._position = 0
        self._dirty: list[Connection] = []
        self._flush_planned = False
        self._epoch = 0  # moves whenever a cached route could be wrong
        self.clients: dict[bytes, list[Connection]] = {}  # per key, the one that receives last
        self.watchers: set[Connection] = set()  # relays of our region that follow who is here
        self._link_ends: dict[Connection, asyncio.Event] = {}
        self.links: set[Connection] = set()  # relays of our region that we follow
        self.forwarders: dict[bytes, dict[Connection, None]] = {}  # keys that are on other relays
        self.counters = Counters()
        self._bytes_out = 0  # of connections that are closed

    # -- who is here

    @property
    def client_count(self) -> int:
        """How many different keys are connected."""
        return len(self.clients)

    @property
    def bytes_out(self) -> int:
        """All that clients' sockets took, TLS included."""
        return self._bytes_out + sum(conn.sent for conn in [*self.connections(), *self.links])

    def connections(self) -> list[Connection]:
        return [conn for group in self.clients.values() for conn in group]

    def add(self, conn: Connection, leftover: bytes = b"") -> None:
        """Take over an admitted connection; ``leftover`` is what it has sent already."""
        group = self.clients.setdefault(conn.key, [])
        if len(group) >= MAX_CONNECTIONS_PER_KEY:
            self.close(group[0])
        group.append(conn)
        _mark_shared(group)
        self._epoch += 1
        self.counters.accepted += 1
        if len(group) == 1:
            self._tell_watchers(_present(conn))
        self._start(conn, leftover)

    def add_link(self, conn: Connection, leftover: bytes = b"") -> None:
        """Follow another relay of the region, by a connection that we dialled."""
        conn.mesh_link = True
        self.links.add(conn)
        self._link_ends[conn] = asyncio.Event()
        self.send(conn, encode_frame(FrameType.WATCH_CONNS))
        self._start(conn, leftover)

    def _start(self, conn: Connection, leftover: bytes) -> None:
        now = self._loop.time()
        conn.tokens, conn.tokens_at = float(self._burst), now
        conn.gone_allowance, conn.gone_checked = float(GONE_BURST), now
        spread = (
            conn.key[-1] / 255 * KEEPALIVE_SPREAD
        )  # keys are random: no herd of keepalives after a restart
        conn.keepalive_due = now + KEEPALIVE_SECONDS + spread
        self._loop.add_reader(conn.sock, self._on_readable, conn)
        if leftover:
            self._take(conn, leftover)
        if conn.unsent and not conn.closed:
            self._watch_writable(conn)

    def close(self, conn: Connection) -> None:
        """End one connection; when it was the last of its key, those whom it wrote to hear so."""
        if conn.closed:
            return
        self._loop.remove_reader(conn.sock)
        self._loop.remove_writer(conn.sock)
        conn.close()
        self._bytes_out += conn.sent
        self._epoch += 1
        self.watchers.discard(conn)
        if conn.mesh_link:
            self._drop_link(conn)
            return
        group = self.clients[conn.key]
        group.remove(conn)
        _mark_shared(group)
        if group:
            group[-1].sent_to |= conn.sent_to
        else:
            del self.clients[conn.key]
            self._tell_gone(conn)
        conn.sent_to = set()

    def close_all(self) -> None:
        """The relay's end: nobody is told, everybody is closed."""
        self.watchers.clear()
        for conn in [*self.connections(), *self.links]:
            conn.sent_to = set()
            self.close(conn)

    async def link_ended(self, link: Connection) -> None:
        """Wait until a link that :meth:`add_link` took over is closed."""
        await self._link_ends[link].wait()
        del self._link_ends[link]

    async def drained(self) -> None:
        """Wait until nothing waits for any client."""
        while any(conn.waiting for conn in self.connections()):  # noqa: ASYNC110 - once, at the relay's end
            await asyncio.sleep(DRAIN_STEP_SECONDS)

    def has(self, conn: Connection) -> bool:
        """Whether this connection is the switch's business (and its closing too)."""
        return conn.closed or conn in self.clients.get(conn.key, ())

    def close_key(self, key: bytes) -> int:
        """Cut a key off at once; returns how many connections that ended."""
        group = list(self.clients.get(key, ()))
        for conn in group:
            self.close(conn)
        return len(group)

    def _drop_link(self, link: Connection) -> None:
        self.links.discard(link)
        self._link_ends[link].set()
        for key in [key for key, links in self.forwarders.items() if link in links]:
            self._drop_forwarder(key, link)

    def _drop_forwarder(self, key: bytes, link: Connection) -> None:
        links = self.forwarders.get(key, {})
        links.pop(link, None)
        if not links:
            self.forwarders.pop(key, None)
        self._epoch += 1

    def _tell_gone(self, conn: Connection) -> None:
        frame = peer_gone_frame(NodePublic(conn.key), PeerGoneReason.DISCONNECTED)
        for key in conn.sent_to:
            for peer in self.clients.get(key, ()):
                self.send(peer, frame)
        self._tell_watchers(frame)

    def _tell_watchers(self, frame: bytes) -> None:
        for watcher in self.watchers:
            self.send(watcher, frame)

    # -- in

    def _take(self, conn: Connection, data: bytes) -> None:
        """Handle bytes that were not read into the arena."""
        for at in range(0, len(data), READ_BYTES):
            if conn.closed:
                return
            piece = data[at : at + READ_BYTES]
            self._reserve(len(conn.partial))
            start = self._position + len(conn.partial)
            self._view[start : start + len(piece)] = piece
            self._process_read(conn, len(piece))

    def _reserve(self, partial: int) -> None:
        if self._position + partial + READ_BYTES > ARENA_BYTES:
            self.flush()

    def _on_readable(self, conn: Connection) -> None:
        if conn.is_websocket:
            self._read_messages(conn)
            return
        partial = len(conn.partial)
        self._reserve(partial)
        count = conn.read_into(self._view[self._position + partial :])
        if count > 0:
            self._process_read(conn, count)
            if self._rate:
                self._charge(conn, count)
        elif count == LEFT:
            self.close(conn)

    def _read_messages(self, conn: Connection) -> None:
        data = conn.read_messages()
        if data is None:
            self.close(conn)
            return
        if data:
            self._take(conn, data)
            if self._rate:
                self._charge(conn, len(data))
        if conn.unsent and not conn.closed:
            self._watch_writable(conn)

    def _process_read(self, conn: Connection, count: int) -> None:
        """Handle what was just read behind the client's partial frame."""
        start = self._position
        partial = conn.partial
        if partial:
            self._view[start : start + len(partial)] = partial
        end = start + len(partial) + count
        self.counters.bytes_in += count
        if conn.shared:
            self._prefer(conn)
        self._position = end
        rest = self._process(conn, start, end)
        conn.partial = bytes(self._view[rest:end]) if rest < end and not conn.closed else b""

    def _prefer(self, conn: Connection) -> None:
        """Of connections with one key, the last that sent something receives."""
        group = self.clients[conn.key]
        if group[-1] is not conn:
            group.remove(conn)
            group.append(conn)
            self._epoch += 1

    def _process(self, conn: Connection, at: int, end: int) -> int:
        """Route the frames in the arena between ``at`` and ``end``; returns where the partial one begins."""
        arena, routes, epoch = self._arena, conn.routes, self._epoch
        get_head, put_head = KEYED.unpack_from, KEYED.pack_into  # half the time of slices
        target: Connection | None = None
        run_start = run_end = at
        packets = 0
        if conn.skip:
            at += self._skip(conn, end - at)
        while end - at >= FRAME_HEAD:
            if arena[at] != SEND or conn.mesh_link:
                step = self._control(conn, at, end)
                if step == 0 or conn.closed:
                    break
                at += step
                epoch = self._epoch
                continue
            (head,) = get_head(arena, at)
            route = routes.get(head)
            if route is None or route[3] != epoch:
                route = self._resolve(conn, at, end)
                if route is None:
                    break
            destination, size, replacement, _ = route
            last = end - size
            if at > last:
                break
            if destination is None:
                self._send_elsewhere(conn, at, size)
                at += size
                continue
            if destination is not target or at != run_end:
                if target is not None:
                    self._queue_run(target, run_start, run_end)
                target, run_start = destination, at
            put_head(arena, at, replacement)
            at += size
            packets += 1
            while at <= last and arena.startswith(head, at):  # neighbours of one size to one destination
                put_head(arena, at, replacement)
                at += size
                packets += 1
            run_end = at
        if target is not None:
            self._queue_run(target, run_start, run_end)
        self.counters.packets += packets
        return at

    def _queue_run(self, target: Connection, start: int, end: int) -> None:
        target.iov.append(self._view[start:end])
        if not target.dirty:
            self._mark(target)

    def _mark(self, target: Connection) -> None:
        if not target.dirty:
            target.dirty = True
            self._dirty.append(target)
            if not self._flush_planned:
                self._flush_planned = True
                self._loop.call_soon(self.flush)

    def _resolve(self, conn: Connection, at: int, end: int) -> Route | None:
        """Where the SendPacket at ``at`` goes; ``None``: not a whole head yet, or a bad one (closed)."""
        length = int.from_bytes(self._view[at + 1 : at + FRAME_HEAD], "big")
        if not KEY_BYTES <= length <= MAX_KEYED_BYTES:
            self._violated(conn, f"a SendPacket of {length} bytes")
            return None
        if end - at < KEYED_HEAD:
            return None
        (head,) = KEYED.unpack_from(self._arena, at)
        key = head[FRAME_HEAD:]
        group = self.clients.get(key)
        destination = group[-1] if group else None
        if destination is not None and len(conn.sent_to) < MAX_SENT_TO:
            conn.sent_to.add(key)
        replacement = bytes([RECV]) + head[1:FRAME_HEAD] + conn.key
        route = (destination, FRAME_HEAD + length, replacement, self._epoch)
        if len(conn.routes) >= MAX_ROUTES_CACHED:
            conn.routes.clear()
        conn.routes[head] = route
        return route

    def _send_elsewhere(self, conn: Connection, at: int, size: int) -> None:
        """A packet for nobody here: to another relay of the region, else dropped."""
        key = bytes(self._view[at + FRAME_HEAD : at + KEYED_HEAD])
        packet = self._view[at + KEYED_HEAD : at + size]
        if links := self.forwarders.get(key):
            self.counters.packets_forwarded_out += 1
            link = next(iter(links))
            self.send(link, forward_packet_frame(NodePublic(conn.key), NodePublic(key), bytes(packet)))
        else:
            self._unknown(conn, key, packet)

    def _unknown(self, conn: Connection, key: bytes, packet: memoryview) -> None:
        self.counters.dropped_unknown += 1
        if bytes(packet[: len(DISCO_MAGIC)]) != DISCO_MAGIC:
            return
        now = self._loop.time()
        gained = (now - conn.gone_checked) * GONE_PER_SECOND
        conn.gone_allowance = min(float(GONE_BURST), conn.gone_allowance + gained)
        conn.gone_checked = now
        if conn.gone_allowance >= 1:
            conn.gone_allowance -= 1
            self.send(conn, peer_gone_frame(NodePublic(key), PeerGoneReason.NOT_HERE))

    # -- frames that are no packets of a client

    def _control(self, conn: Connection, at: int, end: int) -> int:
        """A frame that is no SendPacket; returns how far it reaches, 0 when it is not whole yet."""
        kind = self._arena[at]
        length = int.from_bytes(self._view[at + 1 : at + FRAME_HEAD], "big")
        limit = MAX_CONTROL_FRAME
        if kind == FrameType.FORWARD_PACKET and conn.trusted:
            limit = MIN_FORWARD_BYTES + MAX_PACKET_BYTES
        if length > limit:
            if kind in KNOWN:
                self._violated(conn, f"a frame of type {kind} and {length} bytes")
                return 0
            conn.skip = FRAME_HEAD + length
            return self._skip(conn, end - at)
        if end - at < FRAME_HEAD + length:
            return 0
        payload = self._view[at + FRAME_HEAD : at + FRAME_HEAD + length]
        try:
            (self._handle_mesh if conn.mesh_link else self._handle)(conn, kind, payload)
        except WireError as error:
            self._violated(conn, str(error))
        return FRAME_HEAD + length

    @staticmethod
    def _skip(conn: Connection, available: int) -> int:
        """An unknown frame that is too large to keep passes by without being stored."""
        step = min(conn.skip, available)
        conn.skip -= step
        return step

    def _handle(self, conn: Connection, kind: int, payload: memoryview) -> None:
        if kind == FrameType.NOTE_PREFERRED:
            conn.home = bytes(payload[:1]) == b"\x01"
        elif kind == FrameType.PING:
            self._answer_ping(conn, payload)
        elif kind in (FrameType.WATCH_CONNS, FrameType.FORWARD_PACKET, FrameType.CLOSE_PEER):
            if conn.trusted:
                self._handle_trusted(conn, kind, payload)
            else:
                self._violated(conn, f"a frame of type {kind} without the mesh key")

    def _answer_ping(self, conn: Connection, payload: memoryview) -> None:
        """One pong at a time: further pings are dropped until it is on its way."""
        if not PING_BYTES <= len(payload) <= MAX_PING_BYTES:
            self._violated(conn, f"a ping of {len(payload)} bytes")
        elif not conn.pong:
            conn.pong = pong_frame(bytes(payload[:PING_BYTES]))
            self._mark(conn)

    def _handle_trusted(self, conn: Connection, kind: int, payload: memoryview) -> None:
        """Another relay of our region asks."""
        if kind == FrameType.WATCH_CONNS:
            self.watchers.add(conn)
            for group in self.clients.values():
                self.send(conn, _present(group[-1]))
        elif kind == FrameType.CLOSE_PEER and len(payload) == KEY_BYTES:
            self.close_key(bytes(payload))
        elif kind == FrameType.FORWARD_PACKET and len(payload) >= MIN_FORWARD_BYTES:
            self._deliver_forwarded(conn, payload)
        else:
            self._violated(conn, f"a frame of type {kind} and {len(payload)} bytes")

    def _deliver_forwarded(self, conn: Connection, payload: memoryview) -> None:
        """Deliver here and nowhere else: a forwarded packet is never forwarded again."""
        source, key = bytes(payload[:KEY_BYTES]), bytes(payload[KEY_BYTES:MIN_FORWARD_BYTES])
        packet = payload[MIN_FORWARD_BYTES:]
        if group := self.clients.get(key):
            self.counters.packets_forwarded_in += 1
            self.send(group[-1], recv_packet_frame(NodePublic(source), bytes(packet)))
        else:
            self._unknown(conn, key, packet)

    def _handle_mesh(self, conn: Connection, kind: int, payload: memoryview) -> None:
        """What a relay that we follow tells us."""
        key = bytes(payload[:KEY_BYTES])
        if kind == FrameType.PING:
            self._answer_ping(conn, payload)
        elif kind == FrameType.PEER_PRESENT and len(key) == KEY_BYTES:
            self.forwarders.setdefault(key, {})[conn] = None
        elif kind == FrameType.PEER_GONE and len(key) == KEY_BYTES:
            self._drop_forwarder(key, conn)

    def _violated(self, conn: Connection, what: str) -> None:
        logger.info("closing %s: it sent %s", conn.address[0], what)
        self.counters.closed_protocol += 1
        self.close(conn)

    # -- rates

    def _charge(self, conn: Connection, count: int) -> None:
        """Pause reading from a client that sends faster than it may; relays of the mesh may."""
        if conn.closed or conn.trusted or conn.mesh_link:
            return
        now = self._loop.time()
        earned = (now - conn.tokens_at) * self._rate
        conn.tokens = min(float(self._burst), conn.tokens + earned) - count
        conn.tokens_at = now
        if conn.tokens < 0:
            self._loop.remove_reader(conn.sock)
            self._loop.call_later(-conn.tokens / self._rate, self._resume, conn)

    def _resume(self, conn: Connection) -> None:
        if not conn.closed:
            self._loop.add_reader(conn.sock, self._on_readable, conn)

    # -- out

    def send(self, conn: Connection, frame: bytes) -> None:
        """Send one whole frame at the end of this round."""
        if not conn.closed:
            conn.iov.append(frame)
            self._mark(conn)

    def flush(self) -> None:
        """One write per destination; afterwards the arena is free again."""
        self._flush_planned = False
        dirty, self._dirty = self._dirty, []
        for conn in dirty:
            conn.dirty = False
            chunks, conn.iov = conn.iov, []
            if not conn.closed:
                self._write(conn, chunks)
        self._position = 0

    def _write(self, conn: Connection, chunks: list[Buffer]) -> None:
        if conn.pong and not conn.writer_on:
            chunks.append(conn.pong)
            conn.pong = b""
        if len(chunks) > MAX_IOV or conn.layered:
            for part in _parts(chunks):
                self._write_part(conn, part)
        elif chunks:
            self._write_part(conn, chunks)

    def _write_part(self, conn: Connection, chunks: list[Buffer]) -> None:
        """One write, or behind what waits already."""
        if conn.closed:
            return
        if conn.writer_on:
            self._enqueue(conn, chunks)
            return
        try:
            self.counters.dropped_queue += conn.write(chunks)
        except OSError:
            self.close(conn)
            return
        if conn.waiting:
            self._watch_writable(conn)

    def _enqueue(self, conn: Connection, chunks: list[Buffer]) -> None:
        for chunk in chunks:
            for frame in frames_of(chunk):
                self.counters.dropped_queue += conn.enqueue(frame)

    def _watch_writable(self, conn: Connection) -> None:
        if not conn.writer_on:
            conn.writer_on = True
            conn.stalled_since = self._loop.time()
            self._loop.add_writer(conn.sock, self._on_writable, conn)

    def _on_writable(self, conn: Connection) -> None:
        """The socket takes something again: first the frame that was cut, then what was queued."""
        before = conn.waiting
        try:
            if conn.unsent:
                conn.finish_unsent()
            if not conn.unsent and (chunks := conn.take_queued(SEND_BYTES)):
                conn.write(chunks)
        except OSError:
            self.close(conn)
            return
        if conn.waiting < before:
            conn.stalled_since = self._loop.time()
        if not conn.waiting:
            conn.writer_on = False
            self._loop.remove_writer(conn.sock)

    # -- time

    def tick(self) -> None:
        """Once a second: end clients that take nothing, and keep the quiet ones alive."""
        now = self._loop.time()
        for conn in [*self.connections(), *self.links]:
            patience = MESH_WRITE_STALL_SECONDS if conn.trusted or conn.mesh_link else WRITE_STALL_SECONDS
            if conn.writer_on and now - conn.stalled_since > patience:
                self.counters.closed_stalled += 1
                self.close(conn)
            elif now >= conn.keepalive_due:
                conn.keepalive_due += KEEPALIVE_SECONDS
                self.send(conn, LINK_PING if conn.mesh_link else KEEPALIVE_FRAME)


def _mark_shared(group: list[Connection]) -> None:
    for conn in group:
        conn.shared = len(group) > 1


def _present(conn: Connection) -> bytes:
    """What watchers hear of a client. Source: tailscale derp/derpserver (presentFlags)."""
    flags = PeerPresentFlags(0)
    if conn.prober:
        flags |= PeerPresentFlags.PROBER
    if conn.trusted:
        flags |= PeerPresentFlags.MESH
    if not conn.ideal:
        flags |= PeerPresentFlags.NOT_IDEAL
    ip, port = conn.address
    return PeerPresent(NodePublic(conn.key), ip, port, flags or PeerPresentFlags.REGULAR).frame()


def _parts(chunks: Iterable[Buffer]) -> Iterator[list[Buffer]]:
    """Chunks of whole frames, in groups that one write may take."""
    part: list[Buffer] = []
    size = 0
    for chunk in chunks:
        for piece in frames_of(chunk) if len(chunk) > SEND_BYTES else (chunk,):
            if part and (size + len(piece) > SEND_BYTES or len(part) >= MAX_IOV):
                yield part
                part, size = [], 0
            part.append(piece)
            size += len(piece)
    if part:
        yield part
