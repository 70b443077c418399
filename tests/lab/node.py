"""What every client in the lab has, ours or official: a daemon, a command line, a view of the tailnet."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.net import PATIENCE, Done, LabError, Namespace
from tests.lab.processes import Daemon, wait_for

UP_SECONDS = 60.0
URL = re.compile(r"https?://\S+/register/[\w-]+")
PONG = re.compile(r"pong from \S+ \(\S+\) via (?:DERP\((?P<derp>[^)]*)\)|(?P<direct>\S+)) in ")


@dataclass(frozen=True)
class Pong:
    """One answer of ``ping``: through which relay (its code), or from which endpoint."""

    derp: str
    direct: str


def pongs(text: str) -> list[Pong]:
    """The answers in the output of ``tailscale ping`` or ``trenza ping``."""
    return [Pong(found["derp"] or "", found["direct"] or "") for found in PONG.finditer(text)]


class Waiting:
    """``up`` without a key, in the background: it prints what to do and waits."""

    def __init__(self, node: Node, arguments: tuple[str, ...], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = node.spawn(
                *arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, *words: str) -> str:
        """Wait until its output has all of these; returns the output."""
        return wait_for(
            f"the output has {words}; it is:\n{self.text}",
            lambda: self.text if all(word in self.text for word in words) else "",
        )

    def url(self) -> str:
        """Wait for the address that a person must open."""
        found = wait_for("a URL to sign in", lambda: URL.search(self.text))
        return found[0] if found else ""

    def ends_well(self, seconds: float = UP_SECONDS) -> str:
        """Wait for its end with status 0; returns the output."""
        if status := self.process.wait(seconds * PATIENCE):
            raise LabError(f"up ended with status {status}:\n{self.text}")
        return self.text

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Node:
    """A client in a namespace. ``private`` are the folders that it alone sees (see ``Namespace.command``)."""

    daemon: Daemon

    def __init__(self, namespace: Namespace, *, private: Mapping[str, Path], cli: list[str]) -> None:
        self.namespace = namespace
        self.name = namespace.short
        self.private = private
        self._cli = cli
        self._ups = 0

    # -- commands

    def spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
        """Start its command line in the background; the options are those of ``Popen``."""
        return self.namespace.spawn(*self._cli, *arguments, private=self.private, **options)

    def cli(self, *arguments: str, check: bool = True, seconds: float = UP_SECONDS) -> Done:
        """Run its command line to the end."""
        return self.namespace.run(*self._cli, *arguments, private=self.private, check=check, seconds=seconds)

    def up_options(self, url: str) -> tuple[str, ...]:
        return (f"--login-server={url}", f"--hostname={self.name}")

    def up(self, url: str, *options: str, auth_key: str = "") -> Done:
        """Join and wait until it runs."""
        key = (f"--auth-key={auth_key}",) if auth_key else ()
        limit = f"--timeout={UP_SECONDS * PATIENCE - 5:.0f}s"
        return self.cli("up", *self.up_options(url), *key, limit, *options)

    def up_in_background(self, url: str, *options: str) -> Waiting:
        """``up`` without a key: it prints the URL to open and waits."""
        self._ups += 1
        log = self.namespace.folder / f"up{self._ups}.log"
        return Waiting(self, ("up", *self.up_options(url), *options), log)

    def ping(self, target: str, *options: str, check: bool = True) -> list[Pong]:
        """Its own ``ping`` (disco), not the system's."""
        return pongs(self.cli("ping", *options, target, check=check).stdout)

    # -- views

    def status(self) -> dict[str, Any]:
        """``status --json``."""
        return dict(json.loads(self.cli("status", "--json").stdout))

    @property
    def state(self) -> str:
        return str(self.status()["BackendState"])

    def wait_state(self, *states: str, seconds: float = 30.0) -> str:
        """Wait until its backend is in one of these states."""
        return wait_for(
            f"{self.name} is {' or '.join(states)}",
            lambda: state if (state := self.state) in states else "",
            seconds=seconds,
        )

    def address(self, version: int = 4) -> str:
        """Its address in the tailnet."""
        return self.cli("ip", f"-{version}").stdout.strip()

    def addresses(self) -> tuple[str, str]:
        return self.address(4), self.address(6)

    def peer(self, name: str) -> dict[str, Any]:
        """What it says of a peer; :class:`LabError` when it knows none of this host name."""
        for peer in (self.status().get("Peer") or {}).values():
            if str(peer["DNSName"]).partition(".")[0] == name:
                return dict(peer)
        raise LabError(f"{self.name} knows no peer {name}")

    def knows(self, name: str) -> bool:
        try:
            return bool(self.peer(name))
        except LabError:
            return False

    def sees(self, name: str, *, online: bool = True, seconds: float = 30.0) -> dict[str, Any]:
        """Wait until it knows a peer that is online (or off)."""

        def found() -> dict[str, Any] | None:
            peer = self.peer(name)
            return peer if bool(peer["Online"]) is online else None

        what = f"{self.name} sees {name} {'online' if online else 'offline'}"
        return wait_for(what, found, seconds=seconds) or {}

    def knows_relay(self, name: str) -> str:
        """Wait until it knows a peer's home relay; returns its code."""
        return wait_for(f"{self.name} knows the relay of {name}", lambda: str(self.peer(name)["Relay"]))

    def direct(self, name: str, *, seconds: float = 20.0) -> str:
        """Wait until its path to a peer is direct; returns the endpoint."""
        return wait_for(
            f"{self.name} reaches {name} directly", lambda: str(self.peer(name)["CurAddr"]), seconds=seconds
        )

    # -- life

    def start(self) -> Node:
        raise NotImplementedError

    def stop(self) -> None:
        self.daemon.stop()
