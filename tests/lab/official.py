"""An official client in a namespace: ``tailscaled`` and ``tailscale`` as they come, in folders of their own.

The binaries are not part of the project: ``TRENZA_TAILSCALED`` and ``TRENZA_TAILSCALE`` name them, else PATH.
"""

from __future__ import annotations

from pathlib import Path

from tests.lab.net import ETC_NETNS, Namespace, run
from tests.lab.node import Node
from tests.lab.processes import Daemon, clean_environment, wait_for
from tests.needs import official

ETC_FILES = ("passwd", "group", "nsswitch.conf", "os-release", "debian_version", "ssl")


def _fill_etc(folder: Path, namespace: Namespace) -> None:
    """What the client reads of ``/etc``; it writes resolv.conf and a copy of it there."""
    for name in ETC_FILES:
        if Path("/etc", name).exists():
            run("cp", "-a", f"/etc/{name}", folder)
    run("cp", "-a", f"{ETC_NETNS / namespace.name}/.", folder)


class OfficialNode(Node):
    """One official client. Nothing of it reaches the machine: its ``/run`` and ``/etc`` are its own."""

    def __init__(self, namespace: Namespace, **environment: str) -> None:
        private = {"/run": namespace.folder / "run", "/etc": namespace.folder / "etc"}
        for folder in private.values():
            folder.mkdir()
        _fill_etc(private["/etc"], namespace)
        state = namespace.folder / "tailscale"
        state.mkdir()
        self.socket = state / "tailscaled.sock"
        super().__init__(
            namespace, private=private, cli=[str(official("tailscale")), f"--socket={self.socket}"]
        )
        self.daemon = Daemon(
            namespace,
            [
                str(official("tailscaled")),
                f"--statedir={state}",
                f"--socket={self.socket}",
                "--tun=tailscale0",
            ],
            namespace.folder / "tailscaled.log",
            clean_environment(TS_NO_LOGS_NO_SUPPORT="true", **environment),
            private,
        )

    def start(self) -> OfficialNode:
        """Start the daemon and wait for its local API."""
        self.socket.unlink(missing_ok=True)
        self.daemon.start()
        wait_for(f"tailscaled on {self.name} answers", self.socket.exists)
        return self
