"""systemd-resolved, through its own command: it asks us for the tailnet's names, or for all of them.

The settings belong to the interface: they are gone when that goes. Source: tailscale net/dns/resolved.go.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from client.errors import SetupError

if TYPE_CHECKING:
    from client.net.hostdns import HostConfig

COMMAND_SECONDS = 5.0
MAX_DOMAINS = 1000
STUB = "127.0.0.53"
FOLDER = Path("/run/systemd/resolve")
UPLINK = FOLDER / "resolv.conf"  # the resolvers that resolved itself asks
STATIC = "/usr/lib/systemd/resolv.conf"
# Asking us over TLS, or for signatures, would fail; nobody in a tunnel answers multicast.
OFF = ("dnssec", "dnsovertls", "llmnr", "mdns")


class Resolved:
    """The settings of one interface."""

    name = "systemd-resolved"

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._installed: HostConfig | None = None

    @staticmethod
    def rules(path: Path) -> bool:
        """Whether resolv.conf sends this host's programs to resolved."""
        target = os.path.realpath(path)
        return target.startswith(f"{FOLDER}/") or target == STATIC or _nameservers(path) == (STUB,)

    async def answers(self) -> bool:
        """Whether it runs and can be told something."""
        try:
            await _resolvectl("dns")
        except SetupError:
            return False
        return True

    async def install(self, config: HostConfig) -> None:
        """Raises :class:`SetupError`."""
        # A domain to search is one to ask us for, too; named as both it would be the latter alone.
        routed = (f"~{suffix}" for suffix in config.match if suffix not in config.search)
        domains = [*config.search, *routed][:MAX_DOMAINS]
        if config.everything:
            domains.append("~.")
        for setting in OFF:
            await _try(setting, self._interface, "no")
        await _resolvectl("domain", self._interface, *(domains or [""]))
        await _resolvectl("default-route", self._interface, "yes" if config.everything else "no")
        await _resolvectl("dns", self._interface, config.server)
        await _try("flush-caches")
        self._installed = config

    async def is_installed(self) -> bool:
        """A restarted resolved, or somebody's command, may have forgotten us."""
        config = self._installed
        try:
            return config is not None and config.server in await _resolvectl("dns", self._interface)
        except SetupError:
            return False

    async def remove(self) -> None:
        """Raises :class:`SetupError`; an interface that has gone needs nothing."""
        self._installed = None
        if self._interface in {name for _, name in socket.if_nameindex()}:
            await _resolvectl("revert", self._interface)
            await _try("flush-caches")

    def base(self) -> tuple[str, ...]:
        """The resolvers of the other interfaces."""
        return _nameservers(UPLINK)


def _nameservers(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    words = [line.split() for line in lines]
    return tuple(parts[1] for parts in words if len(parts) > 1 and parts[0] == "nameserver")


async def _try(*arguments: str) -> None:
    """For what older versions do not know, and what is not needed."""
    try:
        await _resolvectl(*arguments)
    except SetupError:
        return


async def _resolvectl(*arguments: str) -> str:
    command = shutil.which("resolvectl")
    if command is None:
        raise SetupError("resolvectl is missing: install the package systemd-resolved again")
    process = await asyncio.create_subprocess_exec(
        command, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        raise SetupError("systemd-resolved does not answer: names of the tailnet are not installed") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        words = errors.decode("utf-8", "replace").strip().splitlines()
        raise SetupError(f"systemd-resolved refuses: {words[0][:200] if words else 'without a word'}")
    return output.decode("utf-8", "replace")
