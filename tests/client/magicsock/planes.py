"""Two nodes' data planes and a relay in namespaces, for tests and measurements."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

from client.engine.wireguard_go import SOCKET_FOLDER
from tests.client.magicsock.relays import map_of
from tests.lab.net import LabError, Namespace
from tests.lab.processes import CHECKOUT, Daemon, clean_environment, wait_for
from wire.derpmap import DERPMap, DERPNode
from wire.keys import NodePrivate

ANSWER_SECONDS = 30.0
DERP_PORT, STUN_PORT = 443, 3478
LOCAL4, LOCAL6 = "100.64.0.{}", "fd7a:115c:a1e0::{}"


class PlaneError(Exception):
    """The data plane answered with an error."""


class Relay:
    """Trenza's relay in a namespace, with STUN, open to everybody."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.address = namespace.address4
        folder = namespace.folder / "relay"
        environment = clean_environment(
            TRENZA_RELAY_LISTEN=f"{self.address}:{DERP_PORT}",
            TRENZA_RELAY_STUN=f"{self.address}:{STUN_PORT}",
            TRENZA_RELAY_DATA=str(folder),
            TRENZA_RELAY_HOSTS=self.address,
            TRENZA_RELAY_ADMISSION="open",
        )
        log = namespace.folder / "relay.log"
        self.daemon = Daemon(namespace, [sys.executable, "-m", "relay"], log, environment)
        self.certificate = folder / "relay.crt"

    def start(self) -> Relay:
        self.daemon.start()
        wait_for("the relay listens", self._listens)
        return self

    def _listens(self) -> bool:
        if not self.daemon.running:
            raise LabError(self.daemon.tail())
        with self.namespace.entered():
            probe = socket.socket()
        with probe:
            return probe.connect_ex((self.address, DERP_PORT)) == 0

    @property
    def map(self) -> DERPMap:
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())
        node = DERPNode(
            name="900a",
            region_id=900,
            host_name=self.address,
            ipv4=self.address,
            ipv6="none",
            derp_port=DERP_PORT,
            stun_port=STUN_PORT,
            cert_name="sha256-raw:" + hashlib.sha256(der).hexdigest(),
        )
        return map_of(node)


class Plane:
    """One node: a namespace, an identity, and (while it runs) its data plane's process."""

    _made = 0

    def __init__(self, namespace: Namespace, number: int, *, port: int = 41641) -> None:
        Plane._made += 1
        self.namespace = namespace
        self.key = NodePrivate.generate(os.urandom(32))
        self.interface = f"tz{os.getpid()}x{Plane._made}"[-15:]
        self.port = port
        self.inner4, self.inner6 = LOCAL4.format(number), LOCAL6.format(number)
        self.process: subprocess.Popen[str] | None = None

    @property
    def endpoint(self) -> tuple[str, int]:
        return self.namespace.address4, self.port

    @property
    def endpoint6(self) -> tuple[str, int]:
        return self.namespace.address6, self.port

    def start(self, peer: Plane, relay: Relay | None = None) -> dict[str, Any]:
        """Start the process; returns its first answer. Raises :class:`PlaneError`."""
        config = {
            "interface": self.interface,
            "port": self.port,
            "key": self.key.raw.hex(),
            "addresses": [f"{self.inner4}/32", f"{self.inner6}/128"],
            "peer": peer.key.public().raw.hex(),
            "peer_addresses": [f"{peer.inner4}/32", f"{peer.inner6}/128"],
            "derp_map": relay.map.to_json() if relay else None,
            "region": 900 if relay else None,
        }
        self.process = self.namespace.spawn(
            sys.executable,
            "-m",
            "tests.client.magicsock.host",
            json.dumps(config),
            env=clean_environment(),
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        first: dict[str, Any] = self._answer()
        return first

    def ask(self, name: str, *arguments: Any) -> Any:
        assert self.process is not None
        assert self.process.stdin is not None
        print(json.dumps([name, *arguments]), file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self.process is not None
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], ANSWER_SECONDS)[0]:
            raise PlaneError("no answer")
        line = self.process.stdout.readline()
        if not line:
            self._reap()
            raise PlaneError("the data plane's process ended")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            if "code" in answer:  # it did not even start
                self._reap()
            raise PlaneError(answer["error"])
        return answer

    def kill(self) -> None:
        """SIGKILL the process; what it started lives on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self._reap()

    def close(self, *, keep: bool = False) -> None:
        if self.process is not None:
            self.ask("close", keep)
            self._reap()

    def _reap(self) -> None:
        assert self.process is not None
        self.process.wait(ANSWER_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process = None

    @property
    def uapi_socket(self) -> Path:
        return SOCKET_FOLDER / f"{self.interface}.sock"

    def wireguard_pids(self) -> set[int]:
        """The wireguard-go processes of this namespace."""
        return {pid for pid in self.namespace.pids() if _name(pid) == "wireguard-go"}


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
