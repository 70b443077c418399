"""One connection to a relay once it is admitted: the hot path of relayed packets.

Reading drains the socket and hands on what came, sender by sender, in batches; writing joins what was queued
in a round into one TLS write. Nothing waits long: the queue is bounded in bytes and drops its oldest packets,
and the kernel is given more only while little of what it has is unsent (a full send buffer can be a second of
delay).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sys
from collections import deque
from collections.abc import Callable

from client.magicsock.dial import Connection
from wire import derp
from wire.derp import FrameType
from wire.errors import WireError
from wire.keys import KEY_BYTES, NodePublic

QUEUE_BYTES = 96 * 1024
WRITE_BYTES = 64 * 1024
RECEIVE_BYTES = 256 * 1024
MAX_READS_A_ROUND = 4
MAX_CONTROL_BYTES = 4096
UNSENT_BYTES = 32 * 1024
TCP_NOTSENT_LOWAT = 25
SIOCOUTQNSD = 0x894B
ACKNOWLEDGE_MILLISECONDS = 15_000


class FrameQueue:
    """Whole frames, at most :data:`QUEUE_BYTES` of them: a new one pushes the oldest out."""

    def __init__(self, limit: int = QUEUE_BYTES) -> None:
        self._limit = limit
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, frame: bytes) -> bool:
        """``False`` when others were dropped for it."""
        self._frames.append(frame)
        self._bytes += len(frame)
        kept = self._bytes <= self._limit
        while self._bytes > self._limit and len(self._frames) > 1:
            self._bytes -= len(self._frames.popleft())
            self.dropped += 1
        return kept

    def take(self, limit: int) -> bytes:
        """Frames of up to ``limit`` bytes joined, at least one."""
        taken, size = list[bytes](), 0
        while self._frames and (not taken or size + len(self._frames[0]) <= limit):
            taken.append(self._frames.popleft())
            size += len(taken[-1])
        self._bytes -= size
        return b"".join(taken)

    def clear(self) -> None:
        self._frames.clear()
        self._bytes = 0


class Allowance:
    """The token bucket that a relay may ask its clients to keep to; without one everything is allowed."""

    def __init__(self, rate: int, burst: int, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._at = float(burst), now

    def take(self, size: int, now: float) -> bool:
        if not self._rate:
            return True
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < size:
            return False
        self._tokens -= size
        return True


class Link:
    """Runs from :meth:`start` until :attr:`ended` holds the reason why it is over."""

    def __init__(
        self,
        connection: Connection,
        queue: FrameQueue,
        *,
        on_packets: Callable[[NodePublic, list[bytes]], None],
        on_gone: Callable[[NodePublic, int], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = connection.sock
        self._tls = connection.tls
        self._decoder = connection.decoder
        self._early = connection.frames
        self._queue = queue
        self._on_packets = on_packets
        self._on_gone = on_gone
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._control = b""
        self._unsent = memoryview(b"")
        self._open = True
        self._flush_is_due = False
        self._waits_for_room = False
        info = connection.server_info
        self.allowance = Allowance(info.bytes_per_second, info.bytes_burst, self._loop.time())
        self.last_received = self._loop.time()
        self.ended: asyncio.Future[str] = self._loop.create_future()

    def start(self) -> None:
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ACKNOWLEDGE_MILLISECONDS)
        self._loop.add_reader(self._sock, self._readable)
        self._dispatch(self._early)
        self.wake()

    def end(self, reason: str) -> None:
        """Close; queued packets stay in the queue for the next link."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        if not self.ended.done():  # whoever waits for it may have been cancelled, and the future with it
            self.ended.set_result(reason)

    def wake(self) -> None:
        """The queue has something: write at the end of this round, together with what else comes in it."""
        if not (self._flush_is_due or self._waits_for_room):
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def tell(self, frame: bytes) -> None:
        """A control frame: before all packets, never dropped (but for a flood of pings)."""
        if len(self._control) <= MAX_CONTROL_BYTES:
            self._control += frame
            self.wake()

    def ping(self) -> None:
        """Any answer, or anything else that comes, moves :attr:`last_received`."""
        self.tell(derp.ping_frame(os.urandom(derp.PING_BYTES)))

    # --- writing -----------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flush_is_due = False
        if not self._open:
            return
        try:
            while self._send_unsent() and (self._control or self._queue) and self._kernel_has_room():
                data = self._control + self._queue.take(WRITE_BYTES)
                self._control = b""
                self._tls.write(data)
                self._unsent = memoryview(self._tls.pending())
        except OSError as error:
            self.end(str(error))
        else:
            self._wait_for_room(bool(self._unsent or self._control or self._queue))

    def _send_unsent(self) -> bool:
        """``True`` when nothing is left of the last write."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            return False
        return True

    def _kernel_has_room(self) -> bool:
        answer = fcntl.ioctl(self._sock, SIOCOUTQNSD, bytes(4))
        return int.from_bytes(answer, sys.byteorder) < UNSENT_BYTES

    def _wait_for_room(self, wanted: bool) -> None:
        """Below half of TCP_NOTSENT_LOWAT unsent bytes the socket is writable again."""
        if wanted and not self._waits_for_room:
            self._loop.add_writer(self._sock, self._flush)
        elif self._waits_for_room and not wanted:
            self._loop.remove_writer(self._sock)
        self._waits_for_room = wanted

    # --- reading -----------------------------------------------------------------------------------------

    def _readable(self) -> None:
        frames: list[tuple[int, bytes]] = []
        reason = ""
        try:
            for _ in range(MAX_READS_A_ROUND):
                size = self._sock.recv_into(self._buffer)
                if not size:
                    reason = "the relay closed the connection"
                    break
                self._tls.receive(self._buffer[:size])
                frames += self._decoder.receive(self._tls.read())
                if self._tls.ended:
                    reason = "the relay ended the connection"
                    break
                if size < RECEIVE_BYTES:
                    break
        except BlockingIOError:
            pass
        except (OSError, WireError) as error:
            reason = str(error)
        self.last_received = self._loop.time()
        self._dispatch(frames)
        if reason:
            self.end(reason)

    def _dispatch(self, frames: list[tuple[int, bytes]]) -> None:
        """Packets by sender, in order; the few other frames one by one."""
        batches: dict[bytes, list[bytes]] = {}
        for kind, payload in frames:
            if kind == FrameType.RECV_PACKET:
                batches.setdefault(payload[:KEY_BYTES], []).append(payload[KEY_BYTES:])
            else:
                self._control_frame(kind, payload)
        for raw, packets in batches.items():
            if len(raw) == KEY_BYTES:
                self._on_packets(NodePublic(raw), packets)

    def _control_frame(self, kind: int, payload: bytes) -> None:
        if kind == FrameType.PING and derp.PING_BYTES <= len(payload) <= derp.MAX_PING_BYTES:
            self.tell(derp.pong_frame(payload))
        elif kind == FrameType.PEER_GONE and len(payload) >= KEY_BYTES:
            self._on_gone(*derp.parse_peer_gone(payload))
