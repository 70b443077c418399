"""wireguard-go: WireGuard in a process of its own that outlives the daemon, configured over its UAPI socket.

It is started detached, so that neither the daemon's death nor its terminal's touches a running tunnel; the
next daemon finds it by its socket. Its receive buffers are too small for fast links and it has no setting for
them: they are enlarged from outside, on a duplicate of its own sockets (``pidfd_getfd``).
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from client.engine import links, uapi
from client.engine.base import plan_peers
from client.engine.host import require_free_port, require_tun
from client.engine.uapi_socket import UapiSocket
from client.errors import EngineError, SetupError
from client.wireguard import Address, EngineStatus, PeerConfig
from wire.keys import NodePrivate, NodePublic

PROGRAM = "wireguard-go"
SOCKET_FOLDER = Path("/var/run/wireguard")
START_SECONDS = 10.0
STOP_SECONDS = 5.0
STOP_POLL_SECONDS = 0.05
MAX_COMPLAINT_CHARACTERS = 200
BUFFER_BYTES = 8 * 1024 * 1024
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
BUFFERS = ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF))
SYS_PIDFD_GETFD = 438
SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")
LISTENING = "00010000"  # the flag of a listening socket in /proc/net/unix

log = logging.getLogger(__name__)


class WireguardGoEngine:
    """One wireguard-go process and its TUN interface."""

    name = "wireguard-go"

    def __init__(self, interface: str, *, socket_folder: Path = SOCKET_FOLDER) -> None:
        self.interface = interface
        self._socket = socket_folder / f"{interface}.sock"
        self._uapi = UapiSocket(interface, self._socket)
        self._made = False
        self._pid = 0
        self._enlarged: set[str] = set()

    async def start(self) -> bool:
        link, running = await links.find_link(self.interface), await self._uapi.answers()
        if link is not None:
            return self._check_takeover(link, running=running)
        if running:
            raise SetupError(
                f"a wireguard-go in another network namespace uses the name {self.interface}; "
                "choose another with --tun"
            )
        self._socket.unlink(missing_ok=True)  # left by one that was killed; it would refuse to start
        await self._spawn()
        self._made = True
        await links.mark_ours(self.interface)
        return False

    async def set_key(self, key: NodePrivate, *, listen_port: int, fwmark: int) -> None:
        device = await self._uapi.device()
        changes: dict[str, Any] = {}
        if device.private_key != key:
            changes["private_key"] = key
        if device.status.fwmark != fwmark:
            changes["fwmark"] = fwmark
        if device.status.listen_port != listen_port:
            require_free_port(listen_port)
            changes["listen_port"] = listen_port
        if changes:
            await self._uapi.set(uapi.serialize_device(**changes), listen_port)

    async def set_peers(self, peers: Sequence[PeerConfig]) -> None:
        plan = plan_peers((await self.status()).peers, peers)
        if not plan.empty:
            await self._uapi.set(uapi.serialize_plan(plan))

    async def set_endpoint(self, peer: NodePublic, endpoint: Address) -> None:
        await self._uapi.set(uapi.serialize_endpoint(peer, endpoint))

    async def status(self) -> EngineStatus:
        """Also sees to the buffers: wireguard-go opens new sockets whenever its interface comes up."""
        status = (await self._uapi.device()).status
        self._enlarge_buffers(status.listen_port)
        return status

    async def close(self, *, keep: bool) -> None:
        """Without its interface wireguard-go ends by itself. A stranger's interface is left alone."""
        if keep or not await links.delete_ours(self.interface, made=self._made):
            return
        try:
            async with asyncio.timeout(STOP_SECONDS):
                while await self._uapi.answers():  # noqa: ASYNC110 - another process's end has no event here
                    await asyncio.sleep(STOP_POLL_SECONDS)
        except TimeoutError as error:
            raise EngineError(
                f"the wireguard-go of {self.interface} does not end; kill it by hand"
            ) from error
        self._socket.unlink(missing_ok=True)

    # --- the process -------------------------------------------------------------------------------------

    def _check_takeover(self, link: links.Link, *, running: bool) -> bool:
        if not link.ours:
            raise links.taken(self.interface)
        if not running:
            raise EngineError(
                f"{self.interface} is there, but its wireguard-go does not answer; "
                f"remove it with: ip link delete {self.interface}"
            )
        return True

    async def _spawn(self) -> None:
        """Returns when interface and socket are there: then wireguard-go puts itself in the background."""
        require_tun()
        program = shutil.which(PROGRAM)
        if program is None:
            raise not_installed()
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LOG_LEVEL": ""}
        process = await asyncio.create_subprocess_exec(
            program,
            self.interface,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                _, complaint = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise EngineError(f"wireguard-go did not start within {START_SECONDS:.0f} s") from error
        if process.returncode:
            last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
            raise EngineError(f"wireguard-go does not start: {last[-MAX_COMPLAINT_CHARACTERS:]}")

    # --- its UDP sockets ---------------------------------------------------------------------------------

    def _enlarge_buffers(self, port: int) -> None:
        """Best effort: without it the tunnel works, only slower."""
        try:
            self._pid = self._pid or _owner_of(self._socket)
            if self._pid:
                self._enlarge_sockets(self._pid, port)
        except OSError as error:
            self._pid = 0
            log.info("cannot enlarge wireguard-go's buffers: %s", error.strerror)

    def _enlarge_sockets(self, pid: int, port: int) -> None:
        seen = dict(_sockets_of(pid))
        with PidFd(os.pidfd_open(pid)) as process:
            enlarge_buffers(process, [seen[inode] for inode in seen.keys() - self._enlarged], port)
        self._enlarged = set(seen)


def not_installed() -> SetupError:
    return SetupError(
        "this kernel has no WireGuard and wireguard-go is not installed; run: apt install wireguard-go"
    )


class PidFd:
    """A handle of a process, through which its file descriptors can be duplicated (Linux 5.6)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> PidFd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def duplicate(self, number: int) -> socket.socket:
        """Raises ``OSError`` also when it is no socket; then nothing of it is kept open."""
        fd = self._libc.syscall(SYS_PIDFD_GETFD, self._fd, number, 0)
        if fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        try:
            return socket.socket(fileno=fd)
        except OSError:
            os.close(fd)
            raise


def enlarge_buffers(process: PidFd, descriptors: Iterable[int], port: int) -> None:
    """Of its UDP sockets on ``port``, as far as we may; other descriptors are left alone."""
    for number in descriptors:
        with suppress(OSError), process.duplicate(number) as sock:
            if sock.type == socket.SOCK_DGRAM and sock.getsockname()[1:2] == (port,):
                for forced, asked in BUFFERS:
                    _enlarge(sock, forced, asked)


def _enlarge(sock: socket.socket, forced: int, asked: int) -> None:
    """Without CAP_NET_ADMIN the host's limit (net.core.rmem_max, wmem_max) holds."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, asked, BUFFER_BYTES)


def _owner_of(listener: Path) -> int:
    """The process that listens on a Unix socket, found as ``ss`` does it, by the socket's inode; 0 = none."""
    inode = _inode_of(str(listener))
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                if any(number == inode for number, _ in _sockets_of(int(folder.name))):
                    return int(folder.name)
    return 0


def _inode_of(path: str) -> str | None:
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7] == path and fields[3] == LISTENING:
            return fields[6]
    return None


def _sockets_of(pid: int) -> Iterator[tuple[str, int]]:
    """(inode, descriptor) of a process's sockets; raises :class:`OSError` when it is gone."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if match := SOCKET_LINK.fullmatch(os.readlink(entry)):
                yield match[1], int(entry.name)
