"""Trenza's client run by nobody: no root, no capability, nor any that could be had."""

from __future__ import annotations

import itertools
import shlex
import sys
from pathlib import Path

from tests.lab.net import Namespace
from tests.lab.trenza import TRENZAD, TrenzaNode, program_of

NOBODY = 65534
SOCKS_PORT, WEB_PORT = 1055, 1056
WITHOUT_RIGHTS = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
)


class RootlessNode(TrenzaNode):
    """A daemon that chooses ``--tun userspace`` by itself, with both proxies."""

    def __init__(self, namespace: Namespace, *options: str, **environment: str) -> None:
        super().__init__(namespace, *options, **environment)
        namespace.folder.parent.chmod(0o711)
        home = namespace.folder / "home"
        home.mkdir()
        home.chmod(0o777)
        self.state_folder = home / "state"
        self.socket = home / "trenzad.sock"
        self._cli[-1] = f"--socket={self.socket}"
        self.arguments = [
            f"--state={self.state_folder}",
            f"--socket={self.socket}",
            f"--socks5-server=localhost:{SOCKS_PORT}",
            f"--outbound-http-proxy-listen=localhost:{WEB_PORT}",
            *options,
        ]
        self.daemon.command = [*as_nobody(namespace.folder), *TRENZAD, *self.arguments]

    def inner_pids(self) -> set[int]:
        """What runs in the network namespace that the daemon made for itself."""
        own = _network(self.daemon.pid)
        return {pid for pid in _children(self.daemon.pid) if _network(pid) != own}

    def wireguard_pid(self) -> int | None:
        return next((pid for pid in self.inner_pids() if program_of(pid) == "wireguard-go"), None)


def as_nobody(folder: Path) -> list[str]:
    """A command's beginning: nobody runs the rest, in mounts where it finds Python and may open TUN."""
    steps = [
        f"mkdir -p {folder}/dev",
        f"test -e {folder}/dev/tun || mknod -m 666 {folder}/dev/tun c 10 200",
        f"mount --bind {folder}/dev /dev/net",
    ]
    if closed := _closed_to_others(Path(sys.base_prefix)):
        outer, inner = closed
        place = folder / "python" / inner.relative_to(outer)
        steps += [
            f"mkdir -p {shlex.quote(str(place))}",
            f"mount --bind {shlex.quote(str(inner))} {shlex.quote(str(place))}",
            f"mount --rbind {folder}/python {shlex.quote(str(outer))}",
        ]
    return ["sh", "-c", " && ".join([*steps, 'exec "$@"']), "sh", *WITHOUT_RIGHTS]


def _closed_to_others(path: Path) -> tuple[Path, Path] | None:
    """The first folder on the way to ``path`` that others may not enter, and what is next on the way."""
    ways = [*reversed(path.parents), path]
    for outer, inner in itertools.pairwise(ways):
        if not outer.stat().st_mode & 0o001:
            return outer, inner
    return None


def _network(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0


def _children(pid: int) -> set[int]:
    """All descendants."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found |= {int(entry.name)} | _children(int(entry.name))
    return found
