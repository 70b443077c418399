"""WireGuard backends, and the choice between them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from client.engine import links
from client.engine.base import Engine
from client.engine.host import require_capabilities, require_tun
from client.engine.kernel import KIND, KernelEngine
from client.engine.wireguard_go import PROGRAM, WireguardGoEngine, not_installed

__all__ = ["Engine", "choose_engine"]

T = TypeVar("T")


def choose_engine(interface: str) -> Engine:
    """The kernel's WireGuard where it exists, else wireguard-go; raises ``SetupError`` saying what to do.

    An interface that an earlier daemon left decides: its backend is taken. Blocks for some milliseconds.
    """
    require_capabilities()
    link = _blocking(lambda: links.find_link(interface))
    if link is not None:
        if not link.ours:
            raise links.taken(interface)
        return KernelEngine(interface) if link.kind == KIND else WireguardGoEngine(interface)
    if _blocking(_kernel_has_wireguard):
        return KernelEngine(interface)
    require_tun()
    if shutil.which(PROGRAM) is None:
        raise not_installed()
    return WireguardGoEngine(interface)


async def _kernel_has_wireguard() -> bool:
    """Only trying tells: the module may be there without being loaded."""
    probe = f"trenzap{os.getpid()}"
    if not await links.add_wireguard(probe):
        return False
    await links.delete_link(probe)
    return True


def _blocking(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """In a loop and thread of its own, so that it may be called beside a running loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()
