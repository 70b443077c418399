"""Trenza's own client in a namespace: ``trenzad`` and ``trenza``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from client.errors import ClientError
from client.localapi.client import LocalClient
from tests.lab.net import Done, LabError, Namespace
from tests.lab.node import Node
from tests.lab.processes import Daemon, clean_environment, wait_for

TUN = "trenza0"
END_SECONDS = 20.0
TRENZAD = (sys.executable, "-m", "client.daemon")
TRENZA = (sys.executable, "-m", "client.cli")


class TrenzaNode(Node):
    """One Trenza client. Its ``/run`` is private and outlives the daemon, as wireguard-go's socket must."""

    def __init__(self, namespace: Namespace, *options: str, **environment: str) -> None:
        private = {"/run": namespace.folder / "run"}
        private["/run"].mkdir()
        self.state_folder = namespace.folder / "trenza"
        self.socket = namespace.folder / "trenzad.sock"
        super().__init__(namespace, private=private, cli=[*TRENZA, f"--socket={self.socket}"])
        self.arguments = [f"--state={self.state_folder}", f"--socket={self.socket}", f"--tun={TUN}", *options]
        self.daemon = Daemon(
            namespace,
            [*TRENZAD, *self.arguments],
            namespace.folder / "trenzad.log",
            clean_environment(**environment),
            private,
        )

    def start(self) -> TrenzaNode:
        """Start the daemon and wait for its local API."""
        self.socket.unlink(missing_ok=True)
        self.daemon.start()

        def ready() -> bool:
            if not self.daemon.running:
                raise LabError(f"trenzad ended\n{self.daemon.tail()}")
            return self.socket.exists()

        wait_for(f"trenzad on {self.name} answers", ready)
        return self

    def daemon_refused(
        self, *options: str, prefix: Sequence[str] = (), private: Mapping[str, Path] | None = None
    ) -> Done:
        """Run a daemon with these options after the usual ones (they win); it should end by itself."""
        command = [*prefix, *TRENZAD, *self.arguments, *options]
        folders = dict(self.private) | dict(private or {})
        return self.namespace.run(
            *command, private=folders, check=False, environment=self.daemon.environment, seconds=END_SECONDS
        )

    def status(self) -> dict[str, Any]:
        """What ``status --json`` prints, from the daemon itself: quick enough to be asked often."""
        try:
            return dict(LocalClient(str(self.socket)).get("status", peers="true"))
        except ClientError as error:
            raise LabError(str(error)) from error

    def address(self, version: int = 4) -> str:
        addresses = self.status()["TailscaleIPs"]
        return next(str(one) for one in addresses if (":" in one) == (version == 6))

    def wait_connected(self, *, connected: bool = True) -> None:
        """Wait until its control connection stands (or is lost)."""
        what = f"{self.name} is {'connected' if connected else 'cut off'}"
        wait_for(what, lambda: self.status()["Control"]["Connected"] is connected, seconds=60)

    def wireguard_pid(self) -> int | None:
        """The detached wireguard-go of its interface; ``None`` with the kernel's WireGuard."""
        for pid in self.namespace.pids():
            if program_of(pid) == "wireguard-go":
                return pid
        return None


def program_of(pid: int) -> str:
    try:
        return Path(os.readlink(f"/proc/{pid}/exe")).name
    except OSError:  # it has just ended
        return ""
