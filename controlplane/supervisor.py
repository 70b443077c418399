"""``manage.py serve``: a small parent that keeps the web workers and the relay running.

It binds the web socket and hands it to its workers, so a worker can die or be replaced (SIGHUP) while
clients wait in the backlog instead of being refused. The relay runs in a session of its own, with its own
sockets: it outlives a killed parent, and the next ``serve`` adopts it through the lock file in DATA.
No Django is loaded here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.env import (
    CHECKOUT,
    DEFAULT_RELAY_PORT,
    DEFAULT_STUN_PORT,
    UNUSABLE,
    Environment,
    EnvironmentProblem,
    HostPort,
    environment,
)

logger = logging.getLogger("trenza.serve")

BACKLOG = 4096
READY_SECONDS = 60.0
STOP_SECONDS = 8.0
RELAY_STOP_SECONDS = 5.0  # with the wait for its status less than the above: it is killed before we give up
BACKOFF_FIRST = 0.1
BACKOFF_MAX = 10.0
STEADY_SECONDS = 30.0  # a child that lived this long starts its next life without a wait
STATUS_SECONDS = 2.0
MAX_STATUS_BYTES = 64 * 1024
KEEPALIVE_SECONDS = 30


# --- sockets and files -----------------------------------------------------------------------------------


def bind_web_socket(listen: HostPort) -> socket.socket:
    """The listening TCP socket of the web workers; raises :class:`EnvironmentProblem` when it is taken."""
    try:
        family = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.create_server((listen.host, listen.port), family=family, backlog=BACKLOG)
        _notice_dead_peers(sock)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot listen on {listen}: {error.strerror or error}; free the port or set TRENZA_LISTEN"
        ) from error
    sock.set_inheritable(True)
    return sock


def _notice_dead_peers(sock: socket.socket) -> None:
    """Accepted sockets inherit this: a client that vanished without a word is found within a minute."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS // 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2 * KEEPALIVE_SECONDS * 1000)


def raise_file_limit() -> None:
    """Each stream is an open file; children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _is_free(host: str, port: int, kind: socket.SocketKind) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _free_port(host: str, kind: socket.SocketKind) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def relay_addresses(env: Environment) -> tuple[HostPort, HostPort]:
    """Where the embedded relay listens (DERP, STUN): as set, else the usual ports, else free ones, kept."""
    kept_file = env.data / "relay.ports"
    try:
        kept = json.loads(kept_file.read_text())
    except (FileNotFoundError, ValueError):
        kept = {}
    host = env.listen.host

    def choose(name: str, default: int, kind: socket.SocketKind) -> HostPort:
        port = kept.get(name)
        if not isinstance(port, int):
            port = default if _is_free(host, default, kind) else _free_port(host, kind)
            kept[name] = port
        return HostPort(host, port)

    derp = env.relay_listen or choose("derp", DEFAULT_RELAY_PORT, socket.SOCK_STREAM)
    stun = env.relay_stun or choose("stun", DEFAULT_STUN_PORT, socket.SOCK_DGRAM)
    _write_private(kept_file, json.dumps(kept))
    return derp, stun


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


def relay_token(env: Environment) -> str:
    """The embedded relay's bearer token: as set, else kept in DATA (0600), made at the first start."""
    path = env.data / "relay.token"
    if env.relay_token:
        return env.relay_token
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        _write_private(path, token := secrets.token_urlsafe(32))
        return token


def _is_ours(name: str) -> bool:
    """Whether a variable is the server's: the relay gets its own, and no password of database or Redis."""
    return name.startswith("TRENZA_") or name in ("DATABASE_URL", "REDIS_URL")


def control_url_for_relay(env: Environment) -> str:
    """How the embedded relay reaches this server: by loopback where it can, else by the public URL."""
    if env.tls_cert:
        return env.url
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(env.listen.host, env.listen.host)  # noqa: S104
    return f"http://{HostPort(host, env.listen.port)}"


# --- children --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Slot:
    """One web worker's place, kept filled until it is retired. ``ready``: a process in it has accepted.

    ``lifeline`` is the process's; it closes when the parent dies.
    """

    process: asyncio.subprocess.Process | None = None
    lifeline: int = -1
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    retired: asyncio.Event = field(default_factory=asyncio.Event)

    def close_lifeline(self) -> None:
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1

    def retire(self) -> None:
        """Let the process finish, and start no other: also where the slot just waits for the next start."""
        self.retired.set()
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()

    async def ended(self) -> int:
        """The process's exit status, once it has ended."""
        return await self.process.wait() if self.process is not None else 0


@dataclass(frozen=True, slots=True)
class RelayStatus:
    pid: int
    clients: int


async def read_relay_status(data: Path) -> RelayStatus | None:
    """Ask the running relay through DATA/relay.sock; ``None`` when none answers in time."""
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(data / "relay.sock"))
            try:
                writer.write(b"GET /status HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")
                answer = await reader.read(MAX_STATUS_BYTES)
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            return None
        status = json.loads(body)
        return RelayStatus(pid=int(status["pid"]), clients=int(status.get("clients", 0)))
    except (OSError, TimeoutError, ValueError, KeyError):
        return None


def locked_relay(data: Path) -> int | None:
    """The pid of the relay that holds DATA's lock, whether it answers or not; ``None`` when none does."""
    try:
        with (data / "relay.lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(json.load(file)["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


async def running_relay(data: Path) -> int | None:
    """The pid of the relay that runs on DATA."""
    if (status := await read_relay_status(data)) is not None:
        logger.info("found the running relay (pid %d, %d clients)", status.pid, status.clients)
        return status.pid
    if (pid := locked_relay(data)) is not None:
        logger.warning("the running relay (pid %d) does not answer", pid)
    return pid


class Supervisor:
    """Owns the children; see the module's docstring for who outlives whom."""

    def __init__(self, env: Environment, *, workers: int, downloads: bool = False) -> None:
        self.env = env
        self.count = workers
        self.downloads = downloads
        self.sock = bind_web_socket(env.listen)
        self.slots: list[Slot] = []
        self.relay: asyncio.subprocess.Process | None = None
        self.stopping = asyncio.Event()
        self._starting_relay = asyncio.Lock()
        self.status = 0
        self._replacing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- web workers

    async def _start_worker(self, slot: Slot) -> None:
        lifeline_read, lifeline_write = os.pipe()
        ready_read, ready_write = os.pipe()
        slot.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(CHECKOUT / "manage.py"),
            "webworker",
            f"--fd={self.sock.fileno()}",
            f"--lifeline={lifeline_read}",
            f"--ready={ready_write}",
            pass_fds=(self.sock.fileno(), lifeline_read, ready_write),
            start_new_session=True,
        )
        os.close(lifeline_read)
        os.close(ready_write)
        slot.lifeline = lifeline_write
        self._spawn(self._watch_ready(slot, ready_read))
        if slot.retired.is_set():  # while the process was made
            slot.retire()

    async def _watch_ready(self, slot: Slot, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(descriptor, readable.set)
        try:
            await readable.wait()
            if os.read(descriptor, 1):
                slot.ready.set()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def _keep_worker(self, slot: Slot) -> None:
        """Keep a slot filled, restarting with backoff, until it is retired."""
        wait = BACKOFF_FIRST
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            code = await slot.ended()
            slot.close_lifeline()
            if code == UNUSABLE and not slot.retired.is_set():  # it has said why
                self.status = 1
                self.stopping.set()
            if slot.retired.is_set() or self.stopping.is_set():
                break
            wait = BACKOFF_FIRST if loop.time() - started > STEADY_SECONDS else min(wait * 2, BACKOFF_MAX)
            logger.warning("a web worker ended (%s); starting another in %.1f s", code, wait)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await slot.retired.wait()
                break
            await self._start_worker(slot)
        self.slots.remove(slot)

    async def _add_slot(self) -> Slot:
        slot = Slot()
        await self._start_worker(slot)
        self.slots.append(slot)
        self._spawn(self._keep_worker(slot))
        return slot

    async def replace_workers(self) -> None:
        """SIGHUP: new workers on the same socket first, then the old ones finish and go."""
        async with self._replacing:
            old = list(self.slots)
            logger.info("replacing %d web worker(s)", len(old))
            fresh = [await self._add_slot() for _ in range(self.count)]
            try:
                async with asyncio.timeout(READY_SECONDS):
                    for slot in fresh:
                        await slot.ready.wait()
            except TimeoutError:
                logger.error("a new web worker did not become ready; the old ones stay")
                retiring = fresh
            else:
                retiring = old
            for slot in retiring:
                slot.retire()

    # -- relay

    def _relay_environment(self) -> dict[str, str]:
        env = self.env
        derp, stun = relay_addresses(env)
        return {
            **{name: value for name, value in os.environ.items() if not _is_ours(name)},
            "TRENZA_RELAY_LISTEN": str(derp),
            "TRENZA_RELAY_STUN": str(stun),
            "TRENZA_RELAY_HOSTS": env.relay_host,
            "TRENZA_RELAY_TOKEN": relay_token(env),
            "TRENZA_RELAY_METRICS_TOKEN": env.metrics_token or "",
            "TRENZA_RELAY_TLS": "on" if env.relay_tls else "off",
            "TRENZA_RELAY_DATA": str(env.data),
            "TRENZA_RELAY_CONTROL_URL": control_url_for_relay(env),
            "PYTHONPATH": str(CHECKOUT),
        }

    async def keep_relay(self) -> None:
        """Adopt a relay that lives on from an earlier parent, else start one; restart it when it dies."""
        wait = BACKOFF_FIRST
        loop = asyncio.get_running_loop()
        while not self.stopping.is_set():
            started = loop.time()
            if (adopted := await self._adopt_or_start_relay()) is not None:
                await _wait_for_end(adopted)
            elif self.relay is not None:
                code = await self.relay.wait()
                self.relay = None
                if not self.stopping.is_set():
                    logger.warning("the relay ended (%s); starting it again", code)
            if self.stopping.is_set():
                return
            wait = BACKOFF_FIRST if loop.time() - started > STEADY_SECONDS else min(wait * 2, BACKOFF_MAX)
            await asyncio.sleep(wait)

    async def _adopt_or_start_relay(self) -> int | None:
        """The pid of a running relay, or ``None``: ``relay`` is a new one, unless we are stopping."""
        async with self._starting_relay:
            if self.stopping.is_set():
                return None
            if (pid := await running_relay(self.env.data)) is not None:
                return pid
            self.relay = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "relay", env=self._relay_environment(), start_new_session=True
            )
            return None

    async def _stop_relay(self) -> None:
        async with self._starting_relay:  # one that is about to start would be left behind
            pid = self.relay.pid if self.relay else await running_relay(self.env.data)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(RELAY_STOP_SECONDS):
                await _wait_for_end(pid)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # -- life

    def _spawn(self, coroutine: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self.replace_workers()))
        greeting = loop.create_task(self._first_start())
        self._spawn(self.keep_relay())
        fresh = [await self._add_slot() for _ in range(self.count)]
        self._spawn(self._announce(fresh, greeting))
        await self.stopping.wait()
        await self._stop()

    async def _first_start(self) -> str:
        """What a first start prepares (tailnet, owner, sign-in link), as lines to print."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(CHECKOUT / "manage.py"), "firststart", stdout=asyncio.subprocess.PIPE
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        return output.decode()

    async def _announce(self, fresh: Sequence[Slot], greeting: asyncio.Task[str]) -> None:
        for slot in fresh:
            await slot.ready.wait()
        text = await greeting
        print(f"Trenza is ready on {self.env.url}\n{text}", end="", flush=True)
        if self.downloads:
            await self._build_downloads()

    async def _build_downloads(self) -> None:
        """Make what the install script fetches, while the server serves; it says itself what failed."""
        process = await asyncio.create_subprocess_exec(
            "nice", sys.executable, str(CHECKOUT / "manage.py"), "builddownloads", start_new_session=True
        )
        try:
            await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # pip, too
            await process.wait()
            raise

    async def _stop(self) -> None:
        logger.info("stopping")
        slots = list(self.slots)
        for slot in slots:
            slot.retire()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(self._stop_relay(), *(slot.ended() for slot in slots))
        except TimeoutError:
            for slot in slots:
                if slot.process is not None:
                    with contextlib.suppress(ProcessLookupError):
                        slot.process.kill()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _wait_for_end(pid: int) -> None:
    """Wait until a process ends, ours or not (one that is not our child cannot be reaped, only watched)."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def main(arguments: Sequence[str]) -> int:
    """Entry point of ``manage.py serve``; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    parser = argparse.ArgumentParser(
        prog="manage.py serve", description="Run the Trenza server and its relay."
    )
    parser.add_argument(
        "--listen", help="HOST:PORT of the web server (default: TRENZA_LISTEN or 127.0.0.1:8080)"
    )
    parser.add_argument("--workers", type=int, default=1, help="web workers; more than one needs REDIS_URL")
    parser.add_argument(
        "--downloads", action="store_true", help="build what the client's install script fetches, if need be"
    )
    options = parser.parse_args(arguments)
    try:
        if options.listen:
            HostPort.parse(options.listen, "--listen")
            os.environ["TRENZA_LISTEN"] = options.listen
            environment.cache_clear()
        env = environment()
        if options.workers < 1:
            raise EnvironmentProblem("--workers must be 1 or more")
        if options.workers > 1 and not env.scaled:
            raise EnvironmentProblem(
                "--workers above 1 needs REDIS_URL: workers share their pushes through Redis"
            )
        env.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        raise_file_limit()
        return asyncio.run(_run(env, options.workers, downloads=options.downloads))
    except EnvironmentProblem as problem:
        print(problem, file=sys.stderr)
        return 1


async def _run(env: Environment, workers: int, *, downloads: bool) -> int:
    supervisor = Supervisor(env, workers=workers, downloads=downloads)
    await supervisor.run()
    return supervisor.status
