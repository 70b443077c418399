"""Network interfaces by netlink: find, make, mark as ours, remove."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from client.engine.base import INTERFACE_ALIAS, TUNNEL_MTU
from client.errors import EngineError, SetupError

# Netlink answers for a kind of interface that the kernel does not have.
NO_SUCH_KIND = frozenset({errno.EOPNOTSUPP, errno.ENODEV})
TRANSMIT_QUEUE_PACKETS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An interface as it is. ``kind`` is "wireguard", "tun", … or "" for hardware."""

    index: int
    kind: str
    alias: str

    @property
    def ours(self) -> bool:
        return self.alias == INTERFACE_ALIAS


async def find_link(name: str) -> Link | None:
    async with AsyncIPRoute() as netlink:
        try:
            answers = await netlink.link("get", ifname=name)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise EngineError(f"cannot look for {name}: {os.strerror(error.code)}") from error
    link = answers[0]
    return Link(
        index=link["index"],
        kind=link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
        alias=link.get_attr("IFLA_IFALIAS") or "",
    )


async def add_wireguard(name: str) -> bool:
    """Make a kernel WireGuard interface; ``False`` when this kernel has none, nor a module of it."""
    async with AsyncIPRoute() as netlink:
        try:
            await netlink.link("add", ifname=name, kind="wireguard")
        except NetlinkError as error:
            if error.code in NO_SUCH_KIND:
                return False
            raise EngineError(f"cannot make the interface {name}: {os.strerror(error.code)}") from error
    return True


async def mark_ours(name: str) -> None:
    """Sign the interface, and give it the queue and MTU that tunnels need."""
    async with AsyncIPRoute() as netlink:
        try:
            await prepare(netlink, name)
        except NetlinkError as error:
            raise EngineError(f"cannot set up {name}: {os.strerror(error.code)}") from error


async def prepare(netlink: AsyncIPRoute, name: str) -> None:
    """As :func:`mark_ours`, wherever ``netlink`` leads. Raises ``NetlinkError``."""
    await netlink.link(
        "set",
        index=await _index(netlink, name),
        ifalias=INTERFACE_ALIAS,
        txqlen=TRANSMIT_QUEUE_PACKETS,
        mtu=TUNNEL_MTU,
    )


async def delete_link(name: str) -> None:
    """Nothing happens when it is gone already."""
    async with AsyncIPRoute() as netlink:
        try:
            await netlink.link("del", index=await _index(netlink, name))
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise EngineError(f"cannot remove {name}: {os.strerror(error.code)}") from error


async def delete_ours(name: str, *, made: bool) -> bool:
    """Remove the interface if it bears our mark or was ``made`` just now; ``False``: there is none such."""
    link = await find_link(name)
    if link is None or not (link.ours or made):
        return False
    await delete_link(name)
    return True


async def _index(netlink: AsyncIPRoute, name: str) -> int:
    answers = await netlink.link("get", ifname=name)
    index: int = answers[0]["index"]
    return index


def taken(name: str) -> SetupError:
    return SetupError(
        f"an interface {name} exists that is not Trenza's; "
        f"choose another name with --tun, or remove it with: ip link delete {name}"
    )
