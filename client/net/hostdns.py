"""Whom this host's programs ask for names: through systemd-resolved where it rules, else by resolv.conf.

What was before is put back by ``remove``, also by the next start after a crash.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from client.errors import SetupError
from client.net.resolvconf import ResolvConf
from client.net.resolved import Resolved


@dataclass(frozen=True, slots=True)
class HostConfig:
    """``server`` answers ``match`` (suffixes) and names in ``search``, or with ``everything`` all names."""

    server: str
    search: tuple[str, ...] = ()
    match: tuple[str, ...] = ()
    everything: bool = False


class Installer(Protocol):
    """One way; methods raise :class:`SetupError`."""

    name: str

    async def install(self, config: HostConfig) -> None:
        """Make it so, also over what is there of it already."""

    async def remove(self) -> None:
        """Put back what was before; nothing to do is no error."""

    async def is_installed(self) -> bool:
        """Whether it still stands as :meth:`install` left it."""
        ...

    def base(self) -> tuple[str, ...]:
        """The resolvers that the host has without us."""
        ...


class HostDns:
    """Chooses the way when something is to be installed, and keeps to it until it is removed."""

    def __init__(self, interface: str, folder: Path, *, path: Path = Path("/etc/resolv.conf")) -> None:
        self._file = ResolvConf(path, folder)
        self._resolved = Resolved(interface)
        self._chosen: Installer | None = None

    @property
    def manager(self) -> str:
        """How names are asked here now; empty = nothing is installed."""
        return self._chosen.name if self._chosen is not None else ""

    async def install(self, config: HostConfig) -> None:
        if self._chosen is None:
            await self._file.remove()  # a killed daemon's: only what was before it tells who rules
            rules = self._resolved.rules(self._file.path) and await self._resolved.answers()
            self._chosen = self._resolved if rules else self._file
        await self._chosen.install(config)

    async def is_installed(self) -> bool:
        return self._chosen is not None and await self._chosen.is_installed()

    async def remove(self) -> None:
        """Also what a killed daemon left behind; what cannot be undone raises after the rest is."""
        chosen, self._chosen = self._chosen, None
        with contextlib.suppress(SetupError):
            if chosen is self._resolved:
                await chosen.remove()
        await self._file.remove()

    def base(self) -> tuple[str, ...]:
        """The host's own resolvers, as texts; whether they can be asked is for the caller to see."""
        if self._chosen is self._resolved or (self._chosen is None and self._resolved.rules(self._file.path)):
            return self._resolved.base() or self._file.base()
        return self._file.base()
