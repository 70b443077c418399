"""The two relays under test as processes, and the clients that the load generator plays."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wire.derp import ClientInfo, client_info_frame
from wire.keys import NONCE_BYTES, NodePrivate, NodePublic

CHECKOUT = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class RunningRelay:
    """``key`` is what its clients' boxes are sealed to."""

    name: str
    pid: int
    port: int
    tls: bool
    key: NodePublic

    def clients(self, count: int) -> bytes:
        """New clients as ``load.c`` reads them: public key, length, ClientInfo frame."""
        return b"".join(self._client() for _ in range(count))

    def _client(self) -> bytes:
        node = NodePrivate.generate(secrets.token_bytes(32))
        frame = client_info_frame(node, self.key, secrets.token_bytes(NONCE_BYTES), ClientInfo())
        return node.public().raw + len(frame).to_bytes(4, "big") + frame


def find_derper() -> str | None:
    """TRENZA_DERPER, else ``derper`` in PATH."""
    return os.environ.get("TRENZA_DERPER") or shutil.which("derper")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def read_key(port: int, tls: bool) -> NodePublic:
    """The relay's key, from the answer to an Upgrade; raises ``OSError`` while it does not listen."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        sock = context.wrap_socket(plain, server_hostname="127.0.0.1") if tls else plain
        with sock:
            sock.sendall(b"GET /derp HTTP/1.1\r\nHost: relay\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n")
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := sock.recv(4096)):
                    raise ConnectionError("the relay closed")
                head += data
    found = re.search(rb"Derp-Public-Key: ([0-9a-f]{64})", head)
    if found is None:
        raise ConnectionError(f"the relay answered {head[:80]!r}")
    return NodePublic(bytes.fromhex(found[1].decode()))


@contextlib.contextmanager
def trenza(folder: Path, tls: bool) -> Iterator[RunningRelay]:
    """Our relay, serving everybody."""
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TRENZA_")},
        "PYTHONPATH": str(CHECKOUT),
        "TRENZA_RELAY_ADMISSION": "open",
        "TRENZA_RELAY_LISTEN": f"127.0.0.1:{port}",
        "TRENZA_RELAY_STUN": "off",
        "TRENZA_RELAY_TLS": "on" if tls else "off",
        "TRENZA_RELAY_HOSTS": "127.0.0.1",
        "TRENZA_RELAY_DATA": str(folder / f"trenza-{port}"),
    }
    with _running("Trenza", [sys.executable, "-m", "relay"], port, tls, environment) as relay:
        yield relay


@contextlib.contextmanager
def derper(binary: str, folder: Path, tls: bool) -> Iterator[RunningRelay]:
    """The reference relay, admission off, no STUN, its certificate its own."""
    port = free_port()
    own = folder / f"derper-{port}"
    own.mkdir()
    command = [binary, "-a", f"127.0.0.1:{port}", "-http-port=-1", "-stun=false", "-c", str(own / "key")]
    if tls:
        command += ["-certmode", "manual", "-hostname", "127.0.0.1", "-certdir", str(own)]
    with _running("derper", command, port, tls, dict(os.environ)) as relay:
        yield relay


@contextlib.contextmanager
def _running(
    name: str, command: list[str], port: int, tls: bool, environment: dict[str, str]
) -> Iterator[RunningRelay]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield RunningRelay(name, process.pid, port, tls, _wait_for_key(process, name, port, tls))
    finally:
        process.kill()
        process.communicate()


def _wait_for_key(process: subprocess.Popen[bytes], name: str, port: int, tls: bool) -> NodePublic:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return read_key(port, tls)
        except OSError as error:
            if process.poll() is not None:
                _, errors = process.communicate()
                raise SystemExit(f"{name} did not start: {errors.decode().strip()[-300:]}") from error
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} does not answer on port {port}: {error}") from error
            time.sleep(0.05)
