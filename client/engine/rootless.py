"""wireguard-go in a network namespace of an ordinary user's: what its packets need of the host, we do.

WireGuard knows its peers by loopback addresses of the namespace; they are translated here, so that endpoints
are real ones to whoever uses this engine (:mod:`client.rootless.crossing`). The namespace and all in it ends
with this process: there is never anything to take over.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from client.engine import links, uapi
from client.engine.base import USERSPACE, Engine, plan_peers
from client.engine.host import require_free_port, require_tun
from client.engine.uapi_socket import UapiSocket
from client.engine.wireguard_go import PROGRAM, START_SECONDS, PidFd, enlarge_buffers
from client.errors import EngineError, SetupError
from client.magicsock.ports import Port, Shuttling
from client.rootless.crossing import Crossing
from client.rootless.namespace import Namespace
from client.wireguard import Address, EngineStatus, PeerConfig, PeerStatus
from wire.keys import NodePrivate, NodePublic

START_POLL_SECONDS = 0.02
MAX_DESCRIPTORS = 64  # wireguard-go, just started, has about ten


class RootlessEngine:
    """``namespace`` is where the interface is; it is made by :meth:`start` and ended by :meth:`close`.

    ``talking``: to whom the last WireGuard, which :meth:`close` ended, had something to say.
    """

    name = USERSPACE

    def __init__(self, interface: str, namespace: Namespace) -> None:
        self.interface = interface
        self.talking: frozenset[NodePublic] = frozenset()
        self._namespace = namespace
        self._uapi: UapiSocket | None = None
        self._inner: socket.socket | None = None
        self._crossing: Crossing | None = None
        self._process: PidFd | None = None

    async def start(self) -> bool:
        require_userspace()
        namespace = self._namespace
        await namespace.open()
        try:
            self._inner = await namespace.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._process = PidFd(await namespace.keep(PROGRAM, "-f", self.interface))
            self._uapi = UapiSocket(self.interface, namespace.path(f"wireguard/{self.interface}.sock"))
            await self._answered(self._uapi)
            async with namespace.netlink() as netlink:
                await links.prepare(netlink, self.interface)
        except (OSError, NetlinkError) as error:
            raise EngineError(f"cannot set up WireGuard in the user namespace: {error}") from error
        return False

    async def _answered(self, device: UapiSocket) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await device.answers():
                    if not self._namespace.is_open:
                        raise EngineError("wireguard-go does not start in the user namespace")
                    await asyncio.sleep(START_POLL_SECONDS)
        except TimeoutError as error:
            raise EngineError(f"wireguard-go did not start within {START_SECONDS:.0f} s") from error

    def make_ports(
        self,
        port: int,
        *,
        mark: int,
        on_packet: Callable[[bytes, Address], None],
        on_outgoing: Callable[[NodePublic, list[bytes]], None],
    ) -> tuple[Port, Shuttling]:
        """The way in and out of the namespace, for :class:`client.magicsock.sock.Magicsock`."""
        inner, self._inner = self._inner, None
        if inner is None:
            raise EngineError(f"{self.interface} is not there; start the engine first")
        crossing = Crossing(inner, port, mark=mark, on_packet=on_packet, on_outgoing=on_outgoing)
        self._crossing = crossing
        if self._process is not None:
            with self._process as process:
                enlarge_buffers(process, range(MAX_DESCRIPTORS), port)
            self._process = None
        return crossing, crossing

    async def set_key(self, key: NodePrivate, *, listen_port: int, fwmark: int) -> None:
        """The mark is for our own sockets: WireGuard's packets never leave the namespace."""
        device = await self._device()
        changes: dict[str, Any] = {}
        if device.private_key != key:
            changes["private_key"] = key
        if device.status.listen_port != listen_port:
            require_free_port(listen_port)
            changes["listen_port"] = listen_port
        if changes:
            await self._socket().set(uapi.serialize_device(**changes), listen_port)

    async def set_peers(self, peers: Sequence[PeerConfig]) -> None:
        plan = plan_peers((await self._device()).status.peers, peers)
        if not plan.empty:
            add = tuple(
                replace(peer, endpoint=self._inside(peer.endpoint)) if peer.endpoint else peer
                for peer in plan.add
            )
            await self._socket().set(uapi.serialize_plan(replace(plan, add=add)))

    async def set_endpoint(self, peer: NodePublic, endpoint: Address) -> None:
        await self._socket().set(uapi.serialize_endpoint(peer, self._inside(endpoint)))

    async def status(self) -> EngineStatus:
        status = (await self._device()).status
        if self._crossing is not None:
            used = [peer.endpoint for peer in status.peers.values() if peer.endpoint]
            self._crossing.in_use(used)
        return replace(status, peers={key: self._outside(peer) for key, peer in status.peers.items()})

    async def close(self, *, keep: bool) -> None:
        """Nothing can be kept."""
        if self._crossing is not None:
            self.talking = frozenset(self._crossing.talked)
            self._crossing.close()
        if self._inner is not None:
            self._inner.close()
        if self._process is not None:
            self._process.close()
        self._process = self._inner = self._crossing = self._uapi = None
        await self._namespace.close()

    # --- translation -------------------------------------------------------------------------------------

    def _inside(self, endpoint: Address) -> Address:
        if self._crossing is None:
            raise EngineError(f"{self.interface} has no way out yet")
        return self._crossing.inside(endpoint)

    def _outside(self, peer: PeerStatus) -> PeerStatus:
        if self._crossing is None or peer.endpoint is None:
            return peer
        return replace(peer, endpoint=self._crossing.outside(peer.endpoint))

    def _socket(self) -> UapiSocket:
        if self._uapi is None:
            raise EngineError(f"{self.interface} is not there; start the engine first")
        return self._uapi

    async def _device(self) -> uapi.Device:
        return await self._socket().device()


def require_userspace() -> None:
    """Raises ``SetupError`` when a program or device is missing that even this mode needs."""
    require_tun()
    if shutil.which(PROGRAM) is None:
        raise SetupError(
            "wireguard-go is not installed, which --tun userspace needs; run: apt install wireguard-go"
        )


def _conforms(engine: RootlessEngine) -> Engine:
    return engine
