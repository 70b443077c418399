"""Headscale with the same people, devices and policy, asked over its own socket.

Its database is filled by hand, then it is started as it comes: how long it takes to load a policy, and to
take in a device or a tag, is what its calls take. They do more than evaluate: each writes a row or two.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import secrets
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.policy.estate import Size, login, node_of
from bench.push.__main__ import free_port

READY_SECONDS = 120.0
CALL_SECONDS = 600.0
KEY_PREFIX = "hskey-authreq-"
NOW = "2026-01-01 00:00:00+00:00"
CONFIGURATION = """
server_url: http://127.0.0.1:{port}
listen_addr: 127.0.0.1:{port}
metrics_listen_addr: 127.0.0.1:{metrics}
noise: {{private_key_path: {folder}/noise.key}}
prefixes: {{v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}}
derp: {{server: {{enabled: false}}, urls: [], paths: ["{folder}/derp.yaml"], auto_update_enabled: false}}
disable_check_updates: true
database: {{type: sqlite, sqlite: {{path: {folder}/db.sqlite}}}}
policy: {{mode: database}}
log: {{level: error}}
dns: {{magic_dns: true, base_domain: example.net, override_local_dns: false, nameservers: {{global: []}}}}
unix_socket: {folder}/headscale.sock
"""
DERP = """
regions:
  900:
    regionid: 900
    regioncode: lab
    regionname: Lab
    nodes: [{name: 900a, regionid: 900, hostname: 127.0.0.1}]
"""


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CALL_SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CALL_SECONDS)
        self.sock.connect(str(self.path))


class Headscale:
    """One server, with a database that was filled for a size."""

    def __init__(self, program: str, folder: Path, size: Size) -> None:
        self.program, self.folder, self.size = program, folder, size
        folder.mkdir()
        (folder / "derp.yaml").write_text(DERP)
        self.configuration = folder / "config.yaml"
        self.configuration.write_text(
            CONFIGURATION.format(port=free_port(), metrics=free_port(), folder=folder)
        )

    @contextlib.contextmanager
    def serving(self) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / "log").open("ab") as log:
            command = [self.program, "-c", str(self.configuration), "serve"]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._wait(process)
            yield process
        finally:
            process.terminate()
            process.wait()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError):
                self.call("GET", "/user")
                return
            time.sleep(0.05)
        raise SystemExit("Headscale does not start:\n" + (self.folder / "log").read_text()[-2000:])

    def call(self, method: str, path: str, body: Any = None) -> float:
        """Milliseconds of one call."""
        connection = Connection(self.folder / "headscale.sock")
        try:
            begun = time.perf_counter()
            connection.request(
                method,
                f"/api/v1{path}",
                json.dumps(body) if body is not None else None,
                {"Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            content = answer.read()
            took = time.perf_counter() - begun
        finally:
            connection.close()
        if answer.status != 200:
            raise SystemExit(f"Headscale, {method} {path}: {answer.status} {content[:500]!r}")
        return took * 1000

    def fill(self) -> None:
        """People and devices, as rows: registering each would take hours."""
        with contextlib.closing(sqlite3.connect(self.folder / "db.sqlite")) as database, database:
            database.executemany(
                "INSERT INTO users (created_at, updated_at, name, email) VALUES (?, ?, ?, ?)",
                [
                    (NOW, NOW, login(number).partition("@")[0], login(number))
                    for number in range(self.size.users)
                ],
            )
            database.executemany(
                "INSERT INTO nodes (machine_key, node_key, disco_key, endpoints, host_info, ipv4, ipv6,"
                " hostname, given_name, user_id, register_method, tags, approved_routes, created_at,"
                " updated_at)"
                " VALUES (?, ?, ?, '[]', ?, ?, ?, ?, ?, ?, 'cli', ?, ?, ?, ?)",
                [self._row(number) for number in range(self.size.nodes)],
            )

    def _row(self, number: int) -> tuple[Any, ...]:
        node = node_of(number, self.size)
        name = node.name.partition(".")[0]
        host = {"OS": "linux", "Hostname": name, "RoutableIPs": list(node.routes)}
        keys = (node.machine_key, node.node_key, node.disco_key)
        lists = (json.dumps(node.tags), json.dumps(node.routes))
        owner = None if node.tags else node.user_id
        return (*keys, json.dumps(host), node.ipv4, node.ipv6, name, name, owner, *lists, NOW, NOW)

    def join(self, user: str) -> float:
        """A device more, of a person."""
        key = KEY_PREFIX + secrets.token_hex(12)
        self.call("POST", "/debug/node", {"user": user, "key": key, "name": f"new-{key[-6:]}", "routes": []})
        return self.call("POST", f"/node/register?user={user}&key={key}")

    def tag(self, node: int, tag: str) -> float:
        return self.call("POST", f"/node/{node}/tags", {"tags": [tag]})


def megabytes(pid: int) -> float:
    """What a process has in memory now."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
