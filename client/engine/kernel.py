"""The kernel's own WireGuard, through generic netlink. Source: linux/wireguard.h."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pyroute2 import WireGuard
from pyroute2.netlink.exceptions import NetlinkError

from client.engine import links
from client.engine.base import plan_peers
from client.engine.host import port_taken, require_free_port
from client.errors import EngineError
from client.wireguard import Address, EngineStatus, PeerConfig, PeerStatus
from wire.keys import NodePrivate, NodePublic

KIND = "wireguard"
NANOSECONDS = 1_000_000_000


class KernelEngine:
    """A kernel interface outlives the daemon by itself: taking over is finding it."""

    name = "kernel"

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._made = False

    async def start(self) -> bool:
        link = await links.find_link(self.interface)
        if link is not None:
            if not (link.ours and link.kind == KIND):
                raise links.taken(self.interface)
            return True
        if not await links.add_wireguard(self.interface):
            raise EngineError(
                "this kernel has no WireGuard; install wireguard-go, or a kernel with the module"
            )
        self._made = True
        await links.mark_ours(self.interface)
        return False

    async def set_key(self, key: NodePrivate, *, listen_port: int, fwmark: int) -> None:
        private, status = await self._info()
        changes: dict[str, Any] = {}
        if private != key.raw:
            changes["private_key"] = _text(key.raw)
        if status.fwmark != fwmark:
            changes["fwmark"] = fwmark
        if status.listen_port != listen_port:
            require_free_port(listen_port)
            changes["listen_port"] = listen_port
        if changes:
            await self._set([changes], listen_port)

    async def set_peers(self, peers: Sequence[PeerConfig]) -> None:
        plan = plan_peers((await self.status()).peers, peers)
        await self._set(
            [
                *({"peer": {"public_key": _text(key.raw), "remove": True}} for key in plan.remove),
                *({"peer": peer_request(peer, known=False)} for peer in plan.add),
                *({"peer": peer_request(peer, known=True)} for peer in plan.change),
            ]
        )

    async def set_endpoint(self, peer: NodePublic, endpoint: Address) -> None:
        host, port = endpoint
        request = {
            "public_key": _text(peer.raw),
            "update_only": True,
            "endpoint_addr": host,
            "endpoint_port": port,
        }
        await self._set([{"peer": request}])

    async def status(self) -> EngineStatus:
        return (await self._info())[1]

    async def close(self, *, keep: bool) -> None:
        """A stranger's interface is left alone."""
        if not keep:
            await links.delete_ours(self.interface, made=self._made)

    async def _set(self, requests: Sequence[Mapping[str, Any]], port: int = 0) -> None:
        """Carry out several settings on one netlink socket, in a thread (the library's calls block)."""

        def work() -> None:
            with WireGuard() as netlink:
                for request in requests:
                    netlink.set(self.interface, **request)

        try:
            await asyncio.to_thread(work)
        except NetlinkError as error:
            if error.code == errno.EADDRINUSE:
                raise port_taken(port) from error
            raise self._failed(error) from error

    async def _info(self) -> tuple[bytes, EngineStatus]:
        def work() -> list[Any]:
            with WireGuard() as netlink:
                return list(netlink.info(self.interface))

        try:
            messages = await asyncio.to_thread(work)
        except NetlinkError as error:
            raise self._failed(error) from error
        return parse_device(messages)

    def _failed(self, error: NetlinkError) -> EngineError:
        return EngineError(f"WireGuard refuses {self.interface}: {os.strerror(error.code)}; restart trenzad")


def peer_request(peer: PeerConfig, *, known: bool) -> dict[str, Any]:
    """One peer as the netlink library wants it; a known peer's endpoint is left alone."""
    request: dict[str, Any] = {
        "public_key": _text(peer.key.raw),
        "replace_allowed_ips": True,
        "allowed_ips": list(peer.allowed_ips),
    }
    if known:
        request["update_only"] = True
    elif peer.endpoint is not None:
        request["endpoint_addr"], request["endpoint_port"] = peer.endpoint
    return request


def parse_device(messages: Iterable[Any]) -> tuple[bytes, EngineStatus]:
    """Private key (empty: none) and status. Long peer lists, and long peers, come in several pieces."""
    private, status = b"", EngineStatus()
    peers: dict[NodePublic, PeerStatus] = {}
    for message in messages:
        if key := message.get_attr("WGDEVICE_A_PRIVATE_KEY"):
            private = base64.b64decode(key)
        status = replace(
            status,
            listen_port=message.get_attr("WGDEVICE_A_LISTEN_PORT") or status.listen_port,
            fwmark=message.get_attr("WGDEVICE_A_FWMARK") or status.fwmark,
        )
        for piece in message.get_attr("WGDEVICE_A_PEERS") or ():
            peer = NodePublic(base64.b64decode(piece.get_attr("WGPEER_A_PUBLIC_KEY")))
            peers[peer] = _with_piece(peers.get(peer, PeerStatus()), piece)
    public = NodePrivate(private).public() if any(private) else None
    return private, replace(status, public_key=public, peers=peers)


def _with_piece(peer: PeerStatus, piece: Any) -> PeerStatus:
    endpoint = piece.get_attr("WGPEER_A_ENDPOINT")
    handshake = piece.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME")
    prefixes = piece.get_attr("WGPEER_A_ALLOWEDIPS") or ()
    return PeerStatus(
        endpoint=(endpoint["addr"], endpoint["port"]) if endpoint else peer.endpoint,
        rx_bytes=piece.get_attr("WGPEER_A_RX_BYTES") or peer.rx_bytes,
        tx_bytes=piece.get_attr("WGPEER_A_TX_BYTES") or peer.tx_bytes,
        last_handshake=(
            handshake["tv_sec"] + handshake["tv_nsec"] / NANOSECONDS if handshake else peer.last_handshake
        ),
        allowed_ips=peer.allowed_ips | {prefix["addr"] for prefix in prefixes},
    )


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()
