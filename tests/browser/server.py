"""A real server in a process of its own, for browser tests: its commands, and devices that ask to join.

No Django here: Playwright's loop and the ORM do not mix.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.commands import Operator
from tests.controlplane.serving import prepared_data
from wire.codec import MapDecoder, decode_json, encode_json
from wire.keys import DiscoPrivate, MachinePrivate, MachinePublic, NodePrivate
from wire.paths import PATH as PATHS
from wire.paths import PeerPath, report_json
from wire.session import ClientSession, DataReceived, StreamEnded

CHECKOUT = Path(__file__).resolve().parents[2]
CAPABILITY = 130
READY_SECONDS = 60.0
MAP_ATTEMPTS = 10
SSH_LINK = re.compile(r"/ssh-check/[\w-]+")
UPGRADE = (
    "POST /ts2021 HTTP/1.1\r\nHost: {host}\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"
    "X-Tailscale-Handshake: {handshake}\r\nContent-Length: 0\r\n\r\n"
)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """``manage.py serve`` with its own DATA."""

    data: Path
    extra: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def local_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address it is known by."""
        return self.extra.get("TRENZA_URL", self.local_url)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRENZA_")}
        return kept | {
            "TRENZA_DATA": str(self.data),
            "TRENZA_URL": self.url,
            "TRENZA_LISTEN": f"127.0.0.1:{self.port}",
            **self.extra,
        }

    @cached_property
    def _operator(self) -> Operator:
        return Operator(self.environment)

    def command(self, *arguments: str) -> Any:
        """Run ``manage.py …`` beside the server; its JSON when it was asked for."""
        return self._operator.run(*arguments)

    def prepare(self) -> None:
        """An empty server with its first tailnet."""
        shutil.copytree(prepared_data(), self.data, dirs_exist_ok=True)

    def sign_in_link(self, email: str = "owner@localhost", *more: str) -> str:
        return str(self.command("signinlink", email, "--create", *more, "--json")["url"])

    def start(self) -> None:
        with (self.data / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(CHECKOUT / "manage.py"), "serve"],
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.local_url}/readyz", timeout=2) as answer,
            ):
                if answer.status == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError("the server did not become ready:\n" + (self.data / "serve.log").read_text())

    def stop(self) -> None:
        self._operator.close()
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


@contextlib.contextmanager
def running_server(data: Path, **extra: str) -> Iterator[Server]:
    """A server on a fresh DATA, prepared and ready, with its first tailnet."""
    server = Server(data, extra)
    server.prepare()
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Device:
    """A machine that speaks the control protocol over an upgraded connection, as far as tests need it."""

    def __init__(self, server: Server, hostname: str, *, system: str = "linux", **hostinfo: Any) -> None:
        self.server = server
        self.machine = MachinePrivate.generate(secrets.token_bytes(32))
        self.node = NodePrivate.generate(secrets.token_bytes(32))
        self.disco = DiscoPrivate.generate(secrets.token_bytes(32))
        self.hostinfo = {"Hostname": hostname, "OS": system, "IPNVersion": "1.90.2-t1a2b3c4d5", **hostinfo}
        self._sock: socket.socket | None = None
        self._session: ClientSession | None = None

    def _server_key(self) -> MachinePublic:
        with urllib.request.urlopen(f"{self.server.local_url}/key?v={CAPABILITY}", timeout=10) as answer:
            return MachinePublic.parse(json.load(answer)["publicKey"])

    def _connect(self) -> tuple[socket.socket, ClientSession]:
        if self._sock is not None and self._session is not None:
            return self._sock, self._session
        session = ClientSession(self.machine, self._server_key(), CAPABILITY, secrets.token_bytes(32))
        sock = socket.create_connection(("127.0.0.1", self.server.port), timeout=30)
        handshake = base64.b64encode(session.initiation()).decode()
        host = urlsplit(self.server.url).netloc
        sock.sendall(UPGRADE.format(host=host, handshake=handshake).encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += sock.recv(4096)
        head, _, rest = received.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise http.client.HTTPException(head.decode())
        while len(rest) < 51:
            rest += sock.recv(4096)
        session.receive_handshake(rest[:51])
        session.receive_data(rest[51:])
        self._sock, self._session = sock, session
        return sock, session

    def _ask(self, path: str, body: dict[str, Any] | None, *, stream: bool = False) -> bytes:
        """POST ``body``, or GET when there is none; the answer, or only its beginning of a ``stream``."""
        sock, session = self._connect()
        content = b"" if body is None else encode_json(body)
        stream_id = session.request("GET" if body is None else "POST", path, content)
        sock.sendall(session.data_to_send())
        answer = b""
        while True:
            data = sock.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            for event in session.receive_data(data):
                if isinstance(event, DataReceived) and event.stream_id == stream_id:
                    answer += event.data
                    if stream and answer:
                        sock.sendall(session.data_to_send())
                        return answer
                if isinstance(event, StreamEnded) and event.stream_id == stream_id:
                    return answer
            sock.sendall(session.data_to_send())

    def register(self, *, auth_key: str = "", followup: str = "", ephemeral: bool = False) -> dict[str, Any]:
        """Ask to join; the answer has AuthURL when a person must confirm."""
        body: dict[str, Any] = {
            "Version": CAPABILITY,
            "NodeKey": str(self.node.public()),
            "OldNodeKey": "nodekey:" + "0" * 64,
            "Hostinfo": self.hostinfo,
            "Ephemeral": ephemeral,
        }
        if auth_key:
            body["Auth"] = {"AuthKey": auth_key}
        if followup:
            body["Followup"] = followup
        answer = decode_json(self._ask("/machine/register", body))
        if answer.get("Error"):
            raise RuntimeError(answer["Error"])
        return dict(answer)

    def join(self, *, auth_key: str) -> None:
        """Register by key and go away."""
        self.register(auth_key=auth_key)
        self.close()

    def listen(self) -> None:
        """Report as clients do, then open the map stream: the device is online until :meth:`close`."""
        body = {
            "Version": CAPABILITY,
            "NodeKey": str(self.node.public()),
            "DiscoKey": str(self.disco.public()),
            "Endpoints": ["192.0.2.7:41641", "10.0.0.7:41641"],
            "Hostinfo": self.hostinfo,
        }
        self._ask("/machine/map", body | {"OmitPeers": True})
        for _ in range(MAP_ATTEMPTS):
            if self._ask("/machine/map", body | {"Stream": True, "KeepAlive": True}, stream=True):
                return
            time.sleep(0.2)
        raise ConnectionError("the server gave no map")

    def catch_up(self) -> None:
        """Take what the server has sent meanwhile, as clients do; come back if it has let go of this one."""
        sock, session = self._connect()
        try:
            while select.select([sock], [], [], 0)[0]:
                data = sock.recv(65536)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                session.receive_data(data)
            sock.sendall(session.data_to_send())
        except ConnectionError:
            self.close()
            self.listen()

    def is_asked(self, status: str = "200 OK", words: str = "{}") -> dict[str, Any]:
        """Wait for the server's next question on the map stream and answer it; returns what was asked."""
        sock, session = self._connect()
        decoder, asked = MapDecoder(compress=False), None
        while asked is None:
            for event in session.receive_data(sock.recv(65536)):
                messages = decoder.receive(event.data) if isinstance(event, DataReceived) else []
                asked = next((one["PingRequest"] for one in messages if "PingRequest" in one), asked)
            sock.sendall(session.data_to_send())
        head, _, body = base64.b64decode(asked["Payload"]).partition(b"\r\n\r\n")
        answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(words.encode())}\r\n\r\n{words}"
        session.request("POST", urlsplit(asked["URL"]).path, answer.encode())
        sock.sendall(session.data_to_send())
        return {"line": head.split(b"\r\n")[0].decode(), "body": json.loads(body)}

    def says(self, **hostinfo: Any) -> None:
        """Tell the server more of this machine, as clients do beside their stream."""
        self.hostinfo |= hostinfo
        body = {"Version": CAPABILITY, "NodeKey": str(self.node.public()), "Hostinfo": self.hostinfo}
        sock, session = self._connect()
        session.request("POST", "/machine/map", encode_json(body | {"OmitPeers": True}))
        sock.sendall(session.data_to_send())

    def tells_paths(self, *paths: PeerPath) -> None:
        """Say how it reaches its peers, as Trenza's client does."""
        answer = self._ask(PATHS, report_json(self.node.public(), paths))
        if answer != b"{}":
            raise RuntimeError(answer.decode())

    def holds_ssh(self, source: int, own: int, user: str) -> str:
        """Hold an SSH session from another node, as the policy wants; the path of its person's page."""
        action = decode_json(self._ask(f"/machine/ssh/action/{source}/to/{own}?local_user={user}", None))
        if (found := SSH_LINK.search(str(action.get("message")))) is None:
            raise RuntimeError(f"the session is not held: {action}")
        return found[0]

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = self._session = None


def join_all(server: Server, names: Sequence[str], *, auth_key: str) -> list[Device]:
    """Devices that join by a key and stay connected."""
    devices = []
    for name in names:
        device = Device(server, name)
        device.register(auth_key=auth_key)
        device.listen()
        devices.append(device)
    return devices
