"""UDP that comes in: each flow (a peer's address and port, and ours) gets a socket on either side."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress

from client.errors import ClientError
from client.rootless.namespace import Namespace
from client.rootless.sockets import (
    ANCILLARY_BYTES,
    LOOPBACK,
    Address,
    destination,
    tell_destinations,
    transparent,
)

MAX_FLOWS = 512  # the one that was silent for longest makes room
MAX_WAITING = 16  # datagrams of a flow that is not ready yet
IDLE_SECONDS = 120.0  # tailscale wgengine/netstack: two minutes
SWEEP_SECONDS = 15.0
MAX_DATAGRAM_BYTES = 65_535
MAX_DATAGRAMS_A_ROUND = 64

log = logging.getLogger(__name__)

Key = tuple[Address, Address]


class Datagrams:
    """``sock`` is a transparent socket of the namespace, bound: it gets what begins a flow."""

    def __init__(self, sock: socket.socket, namespace: Namespace, is_closed: Callable[[int], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._namespace = namespace
        self._is_closed = is_closed
        self._flows: OrderedDict[Key, Flow] = OrderedDict()
        self._opening: set[asyncio.Task[None]] = set()
        self._sweep_timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        tell_destinations(sock)
        self._loop.add_reader(sock, self._receive)

    def close(self) -> None:
        self._sweep_timer.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for task in self._opening:
            task.cancel()
        for flow in self._flows.values():
            flow.close()
        self._flows.clear()

    def _receive(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(MAX_DATAGRAMS_A_ROUND):
                data, ancillary, _, source = self._sock.recvmsg(MAX_DATAGRAM_BYTES, ANCILLARY_BYTES)
                to = destination(ancillary)
                if to is not None and not self._is_closed(to[1]):
                    self._flow((source[0], source[1]), to).inwards(data)

    def _flow(self, source: Address, to: Address) -> Flow:
        key = (source, to)
        if key not in self._flows:
            if len(self._flows) >= MAX_FLOWS:
                self._flows.popitem(last=False)[1].close()
            flow = self._flows[key] = Flow(self._loop, key)
            task = self._loop.create_task(self._open(flow))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        self._flows.move_to_end(key)
        return self._flows[key]

    async def _open(self, flow: Flow) -> None:
        try:
            await flow.open(self._namespace, self._sock.family)
        except (OSError, ClientError) as error:
            log.info("cannot forward UDP to port %d: %s", flow.key[1][1], error)
            self._drop(flow)

    def _sweep(self) -> None:
        self._sweep_timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        since = self._loop.time() - IDLE_SECONDS
        for flow in [flow for flow in self._flows.values() if flow.last < since]:
            self._drop(flow)

    def _drop(self, flow: Flow) -> None:
        if self._flows.get(flow.key) is flow:
            del self._flows[flow.key]
        flow.close()


class Flow:
    """Once open its own socket in the namespace gets the peer's datagrams, past the common one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, key: Key) -> None:
        self.key = key
        self.last = loop.time()
        self._loop = loop
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._peer: socket.socket | None = None
        self._local: socket.socket | None = None
        self._closed = False

    async def open(self, namespace: Namespace, family: socket.AddressFamily) -> None:
        """Raises ``OSError``, ``ClientError``."""
        source, to = self.key
        peer = transparent(await namespace.open_socket(family, socket.SOCK_DGRAM))
        local = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._peer, self._local = peer, local
        if self._closed:
            return self.close()
        peer.bind(to)
        peer.connect(source)
        local.setblocking(False)
        local.connect((LOOPBACK, to[1]))
        self._loop.add_reader(peer, self._pass, peer, local)
        self._loop.add_reader(local, self._pass, local, peer)
        while self._waiting:
            self._send(local, self._waiting.popleft())
        return None

    def inwards(self, data: bytes) -> None:
        """A datagram that came by the common socket."""
        self.last = self._loop.time()
        if self._local is None:
            self._waiting.append(data)
        else:
            self._send(self._local, data)

    def close(self) -> None:
        self._closed = True
        for sock in (self._peer, self._local):
            if sock is not None and sock.fileno() >= 0:
                self._loop.remove_reader(sock)
                sock.close()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        self.last = self._loop.time()
        with suppress(BlockingIOError, ConnectionRefusedError):
            for _ in range(MAX_DATAGRAMS_A_ROUND):
                self._send(target, source.recv(MAX_DATAGRAM_BYTES))

    def _send(self, target: socket.socket, data: bytes) -> None:
        """What cannot go now is lost, as UDP may be."""
        with suppress(OSError):
            target.send(data)
