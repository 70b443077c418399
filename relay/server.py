"""The relay as a whole: its sockets, its parts, its second-by-second duties, its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import logging
import os
import socket
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from relay import VERSION
from relay.admission import Admission, ControlLink
from relay.config import Config, ConfigProblem, Endpoint
from relay.connection import Address, Connection
from relay.files import SOCKET_FILE, Lock, load_key, prepare_data
from relay.handshake import ABOUT, Greeter, describe
from relay.http import parse_request, response
from relay.limits import (
    BACKLOG,
    DRAIN_SECONDS,
    MAX_ACCEPTS_PER_ROUND,
    MAX_HANDSHAKES,
    OUT_OF_FILES_SECONDS,
    STATUS_SECONDS,
    TICK_SECONDS,
    TLS_THREADS,
)
from relay.mesh import MeshLink
from relay.metrics import CONTENT_TYPE, render
from relay.stun import StunServer, bind_second, bind_stun
from relay.switch import Switch
from relay.tls import set_up_tls
from wire.derp import ServerInfo
from wire.errors import WireError

logger = logging.getLogger("trenza.relay")

OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PRIVATE = 0o600


def bind_derp(endpoint: Endpoint) -> socket.socket:
    """The listening TCP socket; raises :class:`ConfigProblem`."""
    sock = None
    try:
        family, _, _, _, address = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)[
            0
        ]
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise ConfigProblem(
            f"cannot listen on {endpoint}: {error.strerror or error}; "
            "free the port or set TRENZA_RELAY_LISTEN"
        ) from error
    return sock


class Relay:
    """Everything between :meth:`start` and :meth:`stop`; both within one running loop."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.stun: StunServer | None = None
        self.stun_again: StunServer | None = None
        self.mesh: list[MeshLink] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._greetings: set[asyncio.Task[None]] = set()
        self._status: asyncio.Server | None = None
        self._listening = False

    async def start(self) -> None:
        """Bind, load, and serve; raises :class:`ConfigProblem` and leaves nothing behind then."""
        config = self.config
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        prepare_data(config.data)
        self._lock = Lock(config.data)
        with contextlib.ExitStack() as undo:
            undo.callback(self._lock.release)
            self.key = load_key(config.data)
            context, self.fingerprint = set_up_tls(config, self.key)
            self._sock = bind_derp(config.listen)
            undo.callback(self._sock.close)
            if config.stun is not None:
                self.stun = StunServer(self._loop, bind_stun(config.stun))
                undo.callback(self._close_stun)
                self._serve_second_stun(config.stun)
            self._status = await self._serve_status()
            undo.pop_all()
        self.switch = Switch(self._loop, rate=config.client_rate, burst=config.client_burst)
        self.admission = Admission(config.data, self.switch.close_key, everybody=config.open_admission)
        self._pool = ThreadPoolExecutor(TLS_THREADS, "tls")
        self._greeter = Greeter(
            key=self.key,
            context=context,
            pool=self._pool,
            admission=self.admission,
            server_info=ServerInfo(
                bytes_per_second=config.client_rate,
                bytes_burst=config.client_burst if config.client_rate else 0,
            ),
            mesh_key=config.mesh_key,
            metrics=lambda: (CONTENT_TYPE, render(self.metrics())),
            metrics_token=config.metrics_token,
            pages={
                "/": lambda: ("text/plain; charset=utf-8", ABOUT),
                "/healthz": lambda: ("text/plain; charset=utf-8", b"ok\n"),
            },
            large=Greeter.large_hellos(),
        )
        self._start_duties()
        self._listen()
        logger.info("relay %s serves DERP on port %d", self.key.public(), self.derp_port)

    def _serve_second_stun(self, stun: Endpoint) -> None:
        if (sock := bind_second(stun, self.derp_port)) is not None:
            self.stun_again = StunServer(self._loop, sock)

    def _stun_servers(self) -> list[StunServer]:
        return [server for server in (self.stun, self.stun_again) if server is not None]

    def _close_stun(self) -> None:
        for server in self._stun_servers():
            server.close()

    def _start_duties(self) -> None:
        config = self.config
        self._spawn(self._tick())
        self._spawn(self.admission.keep_saved())
        self.link: ControlLink | None = None
        if config.control_url and config.token:
            self.link = ControlLink(
                config.control_url, config.token, self.admission, hello=self._hello(), stats=self.stats
            )
            self._spawn(self.link.run())
        for url in config.mesh_with:
            link = MeshLink(url, self.switch, key=self.key, mesh_key=config.mesh_key, pool=self._pool)
            self.mesh.append(link)
            self._spawn(link.run())

    def _spawn(self, duty: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(duty)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a duty of the relay failed", exc_info=error)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.switch.tick()

    # -- what it says of itself

    @property
    def derp_port(self) -> int:
        return int(self._sock.getsockname()[1])

    def _hello(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "derp_key": str(self.key.public()),
            "derp_port": self.derp_port,
            "stun_port": self.stun.port if self.stun else 0,
            "cert_fingerprint": self.fingerprint,
        }

    def stats(self) -> dict[str, int]:
        """The counters that the server keeps."""
        counters = self.switch.counters
        return {
            "clients": self.switch.client_count,
            "bytes_in": counters.bytes_in,
            "bytes_out": self.switch.bytes_out,
            "packets": counters.packets,
            "drops": counters.drops,
        }

    def status(self) -> dict[str, Any]:
        """What the local socket answers."""
        return {
            "pid": os.getpid(),
            "version": VERSION,
            "derp_port": self.derp_port,
            "stun_port": self.stun.port if self.stun else 0,
            "served_keys": len(self.admission),
            "control_connected": self.link is not None and self.link.connected,
            "uptime_seconds": round(self._loop.time() - self._started),
            **self.stats(),
        }

    def metrics(self) -> dict[str, float]:
        """By the names of :data:`relay.metrics.FAMILIES`."""
        switch, counters = self.switch, self.switch.counters
        return {
            "clients": switch.client_count,
            "connections": len(switch.connections()),
            "handshakes": len(self._greetings),
            "served_keys": len(self.admission),
            "control_connected": int(self.link is not None and self.link.connected),
            "mesh_watchers": len(switch.watchers),
            "mesh_links": len(switch.links),
            "uptime_seconds": round(self._loop.time() - self._started, 1),
            "accepted_total": counters.accepted,
            "refused_total": counters.refused,
            "failed_handshakes_total": counters.failed_handshakes,
            "packets_total": counters.packets,
            "packets_forwarded_in_total": counters.packets_forwarded_in,
            "packets_forwarded_out_total": counters.packets_forwarded_out,
            "bytes_in_total": counters.bytes_in,
            "bytes_out_total": switch.bytes_out,
            "dropped_queue_total": counters.dropped_queue,
            "dropped_unknown_total": counters.dropped_unknown,
            "closed_stalled_total": counters.closed_stalled,
            "closed_protocol_total": counters.closed_protocol,
            "stun_answered_total": sum(server.answered for server in self._stun_servers()),
            "stun_ignored_total": sum(server.ignored for server in self._stun_servers()),
        }

    async def _serve_status(self) -> asyncio.Server:
        """The local socket: ``GET /status`` for whoever supervises this relay."""
        path = self.config.data / SOCKET_FILE
        try:
            path.unlink(missing_ok=True)  # the lock is ours: nobody listens there
            server = await asyncio.start_unix_server(self._answer_status, str(path))
            path.chmod(PRIVATE)
        except OSError as error:
            raise ConfigProblem(
                f"cannot listen on {path}: {error.strerror or error}; set TRENZA_RELAY_DATA to a folder on a "
                "local disk whose path has at most 90 characters"
            ) from error
        return server

    async def _answer_status(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(STATUS_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                parsed = parse_request(head)
                if parsed is not None and parsed[0].path == "/status":
                    body = json.dumps(self.status()).encode()
                    writer.write(
                        response(HTTPStatus.OK, headers={"Content-Type": "application/json"}, body=body)
                    )
                else:
                    writer.write(response(HTTPStatus.NOT_FOUND, body=b"not found\n"))
                await writer.drain()
        except (OSError, TimeoutError, WireError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    # -- accepting

    def _listen(self) -> None:
        if not self._listening and self._sock.fileno() >= 0:
            self._listening = True
            self._loop.add_reader(self._sock, self._accept)

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._sock)

    def _accept(self) -> None:
        """A bounded number in each round, so that a storm of new clients does not stop the old ones."""
        for _ in range(MAX_ACCEPTS_PER_ROUND):
            if len(self._greetings) >= MAX_HANDSHAKES:
                self._pause_accepting("too many connections are in their handshake")
                return
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in OUT_OF_FILES:
                    raise
                self._pause_accepting(f"{error.strerror}")
                return
            conn = Connection(sock, _readable_address(address))
            task = self._loop.create_task(self._greet(conn))
            self._greetings.add(task)
            task.add_done_callback(functools.partial(self._greeted, conn))

    def _pause_accepting(self, why: str) -> None:
        logger.warning("accepting no client for %.0f s: %s", OUT_OF_FILES_SECONDS, why)
        self._stop_listening()
        self._loop.call_later(OUT_OF_FILES_SECONDS, self._listen)

    async def _greet(self, conn: Connection) -> None:
        try:
            leftover = await self._greeter.greet(conn)
        except (OSError, TimeoutError, WireError) as error:
            self.switch.counters.failed_handshakes += 1
            logger.debug("handshake with %s failed: %s", conn.address[0], describe(error))
            return
        if leftover is None:
            self.switch.counters.refused += bool(conn.key)
        elif conn.trusted or self.admission.allows(conn.key):  # it may have been revoked this very moment
            self.switch.add(conn, leftover)

    def _greeted(self, conn: Connection, task: asyncio.Task[None]) -> None:
        self._greetings.discard(task)
        failed = not task.cancelled() and task.exception() is not None
        if failed:
            logger.error("a handshake failed by our own fault", exc_info=task.exception())
        if failed or task.cancelled() or not self.switch.has(conn):
            conn.close()

    # -- the end

    async def stop(self) -> None:
        """Accept no more, send what waits (for a moment), close everything."""
        self._stop_listening()
        self._sock.close()
        tasks = [*self._tasks, *self._greetings]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.switch.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.switch.drained()
        self.switch.close_all()
        self._pool.shutdown(wait=False)
        self._close_stun()
        if self._status is not None:
            self._status.close()
        self.admission.save_now()
        with contextlib.suppress(OSError):
            (self.config.data / SOCKET_FILE).unlink(missing_ok=True)
        self._lock.release()
        logger.info("stopped")


def _readable_address(address: Any) -> Address:
    """IP text (an IPv4 one as such, also on a dual-stack socket) and port."""
    return str(address[0]).partition("%")[0].removeprefix("::ffff:"), int(address[1])
