"""One client's connection: its socket, the layers around it (TLS, WebSocket), and what waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol

from relay.limits import (
    DISCO_QUEUE_BYTES,
    MAX_IOV,
    QUEUE_BYTES,
    READ_BYTES,
    SEND_BYTES,
    TLS_READ_BYTES,
    USER_TIMEOUT_MS,
)
from wire.derp import HEADER_BYTES as FRAME_HEAD
from wire.disco import MAGIC as DISCO_MAGIC
from wire.keys import KEY_BYTES

Buffer = bytes | memoryview
Address = tuple[str, int]
KEYED_HEAD = FRAME_HEAD + KEY_BYTES
LEFT, NOTHING = 0, -1  # what read_into says beside a count


def frames_of(data: Buffer) -> Iterator[bytes]:
    """Whole DERP frames, one by one."""
    view, at = memoryview(data), 0
    while at < len(view):
        end = at + FRAME_HEAD + int.from_bytes(view[at + 1 : at + FRAME_HEAD], "big")
        yield bytes(view[at:end])
        at = end


class FrameQueue:
    """Frames for a client that does not keep up: bounded in bytes, the oldest goes first."""

    __slots__ = ("frames", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.frames: deque[bytes] = deque()
        self.limit = limit
        self.size = 0

    def push(self, frame: bytes) -> int:
        """Add a frame; returns how many were dropped for it."""
        self.frames.append(frame)
        self.size += len(frame)
        return self._trim()

    def put_back(self, frames: list[bytes]) -> int:
        """Frames that were taken but not sent, before all others; returns how many were dropped for them."""
        self.frames.extendleft(reversed(frames))
        self.size += sum(map(len, frames))
        return self._trim()

    def _trim(self) -> int:
        dropped = 0
        while self.size > self.limit and len(self.frames) > 1:
            self.size -= len(self.frames.popleft())
            dropped += 1
        return dropped

    def pop(self) -> bytes:
        frame = self.frames.popleft()
        self.size -= len(frame)
        return frame

    def clear(self) -> None:
        self.frames.clear()
        self.size = 0


class Tls:
    """TLS between two memory buffers: the socket's reads and writes stay ours."""

    __slots__ = ("incoming", "object", "outgoing")

    def __init__(self, context: ssl.SSLContext, server_name: str | None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_name is None, server_hostname=server_name
        )


def _is_disco(frame: bytes) -> bool:
    return frame.startswith(DISCO_MAGIC, KEYED_HEAD)


# (who receives it or None, size of the whole frame, the head to write over it, the switch's epoch)
Route = tuple["Connection | None", int, bytes, int]


class Connection:
    """See the module's docstring. ``key`` is the client's raw node key, empty until its handshake is done."""

    __slots__ = (
        "_tls",
        "_ws",
        "address",
        "closed",
        "dirty",
        "disco_queue",
        "gone_allowance",
        "gone_checked",
        "home",
        "ideal",
        "iov",
        "keepalive_due",
        "key",
        "mesh_link",
        "partial",
        "pong",
        "prober",
        "queue",
        "routes",
        "sent",
        "sent_to",
        "shared",
        "skip",
        "sock",
        "stalled_since",
        "tokens",
        "tokens_at",
        "trusted",
        "unsent",
        "writer_on",
    )

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self.sock = sock
        self.address = address
        self.key = b""
        self.closed = False
        self.home = False
        self.ideal = True  # connected to its region's best relay
        self.prober = False
        self.trusted = False  # bears the mesh key
        self.mesh_link = False  # we dialled another relay of the region
        self.shared = False  # another connection bears the same key
        self.partial = b""
        self.skip = 0
        self.routes: dict[bytes, Route] = {}
        self.iov: list[Buffer] = []
        self.pong = b""
        self.sent = 0  # bytes that the socket took
        self.dirty = False
        self.unsent: Buffer = b""
        self.queue = FrameQueue(QUEUE_BYTES)
        self.disco_queue = FrameQueue(DISCO_QUEUE_BYTES)
        self.writer_on = False
        self.stalled_since = 0.0
        self.keepalive_due = 0.0
        self.sent_to: set[bytes] = set()
        self.gone_allowance = 0.0
        self.gone_checked = 0.0
        self.tokens = 0.0
        self.tokens_at = 0.0
        self._tls: Tls | None = None
        self._ws: Protocol | None = None
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
            # A stalled client must not fill megabytes of kernel memory; what is in flight stays unlimited.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, SEND_BYTES)

    @property
    def layered(self) -> bool:
        """Whether a write is more than the frames themselves."""
        return self._tls is not None or self._ws is not None

    @property
    def is_websocket(self) -> bool:
        return self._ws is not None

    @property
    def waiting(self) -> int:
        """Bytes that wait for this client."""
        return len(self.unsent) + self.queue.size + self.disco_queue.size

    def close(self) -> None:
        """Close the socket and let go of everything that is kept for it."""
        self.closed = True
        self.sock.close()
        self.iov = []
        self.routes = {}
        self.partial = self.unsent = b""
        self.queue.clear()
        self.disco_queue.clear()

    # -- before the switch takes over: coroutines

    async def start_tls(
        self, context: ssl.SSLContext, pool: Executor, server_name: str | None = None
    ) -> None:
        """The TLS handshake, as server, or as client of ``server_name``.

        Its arithmetic runs in ``pool``, so a storm of clients does not stop the relay.
        """
        loop = asyncio.get_running_loop()
        tls = Tls(context, server_name)
        while True:
            try:
                await loop.run_in_executor(pool, tls.object.do_handshake)
                break
            except ssl.SSLWantReadError:
                await self._send_output(tls)
                tls.incoming.write(await self._receive_raw())
            except ssl.SSLError:
                await self._send_output(tls)  # the alert that says why
                raise
        await self._send_output(tls)
        self._tls = tls

    async def _send_output(self, tls: Tls) -> None:
        if data := tls.outgoing.read():
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def _receive_raw(self) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self.sock, TLS_READ_BYTES)
        if not data:
            raise ConnectionError("the client left")
        return data

    def use_websocket(self, protocol: Protocol) -> None:
        """From here on bytes are the payload of binary WebSocket messages."""
        self._ws = protocol

    async def receive(self) -> bytes:
        """Some bytes from the client; raises ``OSError`` at its end."""
        while True:
            data = await self._receive_decrypted(self._tls) if self._tls else await self._receive_raw()
            if data := self.unwrap(data):
                return data

    async def _receive_decrypted(self, tls: Tls) -> bytes:
        while not (data := _decrypt(tls)):
            tls.incoming.write(await self._receive_raw())
        return data

    async def send(self, data: bytes) -> None:
        await self.send_raw(self._frame(data))

    async def send_raw(self, data: Buffer) -> None:
        """Send below the WebSocket layer (HTTP, and the WebSocket's own handshake)."""
        early, self.unsent = self.unsent, b""
        await asyncio.get_running_loop().sock_sendall(self.sock, bytes(early) + self._encrypt(data))

    # -- layers

    def _encrypt(self, data: Buffer) -> bytes:
        if self._tls is None:
            return bytes(data)
        if data:
            self._tls.object.write(data)
        return self._tls.outgoing.read()

    def _frame(self, data: Buffer) -> Buffer:
        if self._ws is None:
            return data
        self._ws.send_binary(bytes(data))
        return b"".join(self._ws.data_to_send())

    def unwrap(self, data: bytes) -> bytes:
        """The payload of the WebSocket messages that ``data`` completes; control frames are answered.

        Raises ``ConnectionError`` when the WebSocket has ended.
        """
        if self._ws is None:
            return data
        self._ws.receive_data(data)
        payload = b"".join(
            event.data
            for event in self._ws.events_received()
            if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT)
        )
        if reply := b"".join(self._ws.data_to_send()):
            self.unsent = bytes(self.unsent) + self._encrypt(reply)
        if self._ws.close_expected() or self._ws.parser_exc is not None or len(self.unsent) > QUEUE_BYTES:
            raise ConnectionError("the WebSocket ended")
        return payload

    # -- the switch's side: never blocks

    def read_into(self, view: memoryview) -> int:
        """Bytes into ``view`` (at least READ_BYTES long): how many, LEFT, or NOTHING yet.

        Not for WebSockets.
        """
        tls = self._tls
        try:
            count = self.sock.recv_into(view, READ_BYTES if tls is None else TLS_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return NOTHING
        except OSError:
            return LEFT
        if tls is None or not count:
            return count
        tls.incoming.write(view[:count])  # copied: the plaintext may take its place
        return _decrypt_into(tls, view)

    def read_messages(self) -> bytes | None:
        """A WebSocket client's bytes, possibly none; ``None`` = it left."""
        try:
            raw = self.sock.recv(TLS_READ_BYTES)
            if not raw:
                return None
            if self._tls is not None:
                self._tls.incoming.write(raw)
                raw = _decrypt(self._tls)
            return self.unwrap(raw)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            return None

    def write(self, chunks: list[Buffer]) -> int:
        """Send whole frames now, while nothing waits; raises ``OSError`` when the connection is broken.

        What the socket does not take is kept. Returns how many frames had to be dropped.
        """
        if self._tls is not None or self._ws is not None:
            self.unsent = self._encrypt(self._frame(b"".join(chunks) if len(chunks) > 1 else chunks[0]))
            self.finish_unsent()
            return 0
        try:
            sent = self.sock.sendmsg(chunks) if len(chunks) > 1 else self.sock.send(chunks[0])
        except (BlockingIOError, InterruptedError):
            sent = 0
        self.sent += sent
        if sent == sum(map(len, chunks)):
            return 0
        return self._keep_rest(b"".join(chunks), sent)

    def _keep_rest(self, data: bytes, sent: int) -> int:
        """Finish the part-sent frame first; the frames behind it may still be dropped."""
        at = 0
        while at < sent:
            at += FRAME_HEAD + int.from_bytes(data[at + 1 : at + FRAME_HEAD], "big")
        self.unsent = data[sent:at]
        disco: list[bytes] = []
        others: list[bytes] = []
        for frame in frames_of(memoryview(data)[at:]):
            (disco if _is_disco(frame) else others).append(frame)
        return self.disco_queue.put_back(disco) + self.queue.put_back(others)

    def finish_unsent(self) -> None:
        """Send what must go first; raises ``OSError`` when the connection is broken."""
        try:
            sent = self.sock.send(self.unsent)
        except (BlockingIOError, InterruptedError):
            return
        self.sent += sent
        self.unsent = memoryview(self.unsent)[sent:] if sent < len(self.unsent) else b""

    def enqueue(self, frame: bytes) -> int:
        """Keep a frame for later, disco apart; returns how many were dropped for it."""
        return (self.disco_queue if _is_disco(frame) else self.queue).push(frame)

    def take_queued(self, size: int) -> list[Buffer]:
        """Up to about ``size`` bytes of queued frames, the pong and disco first."""
        taken: list[Buffer] = []
        if self.pong:
            taken.append(self.pong)
            self.pong = b""
        for queue in (self.disco_queue, self.queue):
            while queue.frames and size > 0 and len(taken) < MAX_IOV:
                frame = queue.pop()
                size -= len(frame)
                taken.append(frame)
        return taken


def _decrypt(tls: Tls) -> bytes:
    """All that can be decrypted now; raises ``OSError`` (``SSLError`` is one) at the stream's end."""
    pieces = []
    try:
        while data := tls.object.read(TLS_READ_BYTES):
            pieces.append(data)
    except ssl.SSLWantReadError:
        return b"".join(pieces)
    if not pieces:
        raise ConnectionError("the client ended TLS")
    return b"".join(pieces)


def _decrypt_into(tls: Tls, view: memoryview) -> int:
    """As :meth:`Connection.read_into`. One read of TLS_READ_BYTES fits in READ_BYTES: none stays behind."""
    read: Any = tls.object.read  # typeshed knows bytearrays only
    size = 0
    try:
        while count := read(READ_BYTES - size, view[size:]):
            size += count
    except ssl.SSLWantReadError:
        return size or NOTHING
    except ssl.SSLError:
        pass  # a broken record ends the stream as a goodbye does: what came before it still counts
    return size
