"""/etc/resolv.conf: ours in its place, the one before kept in the state folder, put back in the end.

Replaced atomically; where it is a mount point (containers), it is written over. A backup without our file in
place means that somebody else has written a newer one: that is left alone.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from client.errors import SetupError

if TYPE_CHECKING:
    from client.net.hostdns import HostConfig

BACKUP = "resolv.conf.before"
MAX_BYTES = 64 * 1024
MAX_SEARCH_BYTES = 2048  # older glibc: 256 bytes and 6 domains; newer: no limit
MARK = "# Written by trenzad, the Trenza VPN client."
NO_RENAME = {errno.EBUSY, errno.EXDEV, errno.EROFS, errno.EACCES, errno.EPERM}
HELP = "MagicDNS needs that; trenza set --accept-dns=false does without"


class ResolvConf:
    """The file at ``path``; its backup is in ``folder``."""

    name = "resolv.conf"

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self._backup = folder / BACKUP
        self._written = ""

    def base(self) -> tuple[str, ...]:
        """The nameservers of the file that is not ours."""
        text = self._before() if self._is_ours(current := _read(self.path)) else current
        return tuple(line.split()[1] for line in text.splitlines() if _is(line, "nameserver"))

    async def install(self, config: HostConfig) -> None:
        """Keep what is there (unless it is ours already) and write ours. Raises :class:`SetupError`."""
        try:
            if not self._is_ours(_read(self.path)):
                self._keep()
            text = self._render(config, self._before())
            if text != _read(self.path):
                _write(self.path, text)
            self._written = text
        except OSError as error:
            raise SetupError(f"cannot write {self.path} ({error.strerror or error}): {HELP}") from error

    async def is_installed(self) -> bool:
        return bool(self._written) and _read(self.path) == self._written

    async def remove(self) -> None:
        """Put the file back if ours is in its place. Raises :class:`SetupError`."""
        self._written = ""
        try:
            if self._is_ours(_read(self.path)):
                self._put_back()
            self._backup.unlink(missing_ok=True)
        except OSError as error:
            raise SetupError(
                f"cannot put {self.path} back ({error.strerror or error}): it is kept as {self._backup}"
            ) from error

    # --- the file before us ------------------------------------------------------------------------------

    @staticmethod
    def _is_ours(text: str) -> bool:
        return text.startswith(MARK)

    def _keep(self) -> None:
        self._backup.unlink(missing_ok=True)
        if self.path.is_symlink():
            self._backup.symlink_to(os.readlink(self.path))
        else:
            _write(self._backup, _read(self.path))

    def _before(self) -> str:
        """The text of the file before; a link is followed from where it stood, for its target lives on."""
        if self._backup.is_symlink():
            return _read(self.path.parent / os.readlink(self._backup))
        return _read(self._backup)

    def _put_back(self) -> None:
        if self._backup.is_symlink():
            temporary = _beside(self.path)
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(os.readlink(self._backup))
            temporary.replace(self.path)
        else:  # without a backup nothing is known: an empty file stands for this machine's own server
            _write(self.path, _read(self._backup))

    def _render(self, config: HostConfig, before: str) -> str:
        lines = [line for line in before.splitlines() if _is(line, "options")]
        theirs = [word for line in before.splitlines() if _is(line, "search") for word in line.split()[1:]]
        search = " ".join(dict.fromkeys([*config.search, *theirs]))[:MAX_SEARCH_BYTES]
        return "\n".join(
            [
                MARK,
                "# It is put back as it was by: trenza down, or trenza set --accept-dns=false",
                f"# The file before it is kept as {self._backup}",
                f"nameserver {config.server}",
                *([f"search {search}"] if search else []),
                *lines,
                "",
            ]
        )


def _is(line: str, keyword: str) -> bool:
    words = line.split()
    return len(words) > 1 and words[0] == keyword


def _read(path: Path) -> str:
    """The text, empty for a missing file; never more than a bound."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.trenza")


def _write(path: Path, text: str) -> None:
    """Replace the file whole, readable by all; where that cannot be, write over it."""
    temporary = _beside(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        _remove(temporary)
        if error.errno not in NO_RENAME:
            raise
        path.write_bytes(text.encode())


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
