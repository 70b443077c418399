"""Headscale and derper as they come, in namespaces: a coordination server and a relay that are not ours.

The binaries are not part of the project: ``TRENZA_HEADSCALE`` and ``TRENZA_DERPER`` name them, else PATH.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from pathlib import Path

from tests.lab.net import LabError, Namespace
from tests.lab.processes import Daemon, wait_for
from tests.needs import official

PORT = 8080
REGION, CODE = 900, "lab"
USER = "anna"
DOMAIN = "lab.example"
DERP_MAP = """
regions:
  {region}:
    regionid: {region}
    regioncode: {code}
    regionname: Lab
    nodes:
      - name: {region}a
        regionid: {region}
        hostname: {address}
        ipv4: {address}
        certname: {certificate}
"""
CONFIGURATION = """
server_url: {url}
listen_addr: {address}:{port}
metrics_listen_addr: 127.0.0.1:9090
noise: {{private_key_path: {folder}/noise.key}}
prefixes: {{v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}}
derp: {{server: {{enabled: false}}, urls: [], paths: ["{folder}/derp.yaml"], auto_update_enabled: false}}
disable_check_updates: true
database: {{type: sqlite, sqlite: {{path: {folder}/db.sqlite}}}}
policy: {{mode: file, path: ""}}
dns: {{magic_dns: true, base_domain: {domain}, override_local_dns: false, nameservers: {{global: []}}}}
unix_socket: {folder}/headscale.sock
"""


class Derper:
    """The official relay, with a certificate that it makes for its address."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        address, self.folder = namespace.address4, namespace.folder / "derper"
        self.folder.mkdir()
        self.daemon = Daemon(
            namespace,
            [
                str(official("derper")),
                f"--hostname={address}",
                "--certmode=manual",
                f"--certdir={self.folder}",
                f"-c={self.folder / 'derper.json'}",
                "--a=:443",
                "--http-port=-1",
            ],
            namespace.folder / "derper.log",
        )

    def start(self) -> Derper:
        self.daemon.start()
        wait_for("derper has made its certificate", self._certificate.exists)
        return self

    @property
    def _certificate(self) -> Path:
        return self.folder / f"{self.namespace.address4}.crt"

    @property
    def pin(self) -> str:
        """Its certificate as a DERP map names it."""
        raw = ssl.PEM_cert_to_DER_cert(self._certificate.read_text())
        return "sha256-raw:" + hashlib.sha256(raw).hexdigest()


class Headscale:
    """A server at ``http://ADDRESS:8080`` with one person, whose devices use ``derper`` as their relay."""

    def __init__(self, namespace: Namespace, derper: Derper) -> None:
        self.namespace = namespace
        self.url = f"http://{namespace.address4}:{PORT}"
        folder = namespace.folder / "headscale"
        folder.mkdir()
        (folder / "derp.yaml").write_text(
            DERP_MAP.format(
                region=REGION, code=CODE, address=derper.namespace.address4, certificate=derper.pin
            )
        )
        configuration = folder / "config.yaml"
        configuration.write_text(
            CONFIGURATION.format(
                url=self.url, address=namespace.address4, port=PORT, folder=folder, domain=DOMAIN
            )
        )
        self._command = [str(official("headscale")), f"--config={configuration}"]
        self.daemon = Daemon(namespace, [*self._command, "serve"], namespace.folder / "headscale.log")

    def start(self) -> Headscale:
        self.daemon.start()

        def ready() -> bool:
            if not self.daemon.running:
                raise LabError(f"headscale ended\n{self.daemon.tail()}")
            return self._run("users", "list", check=False) is not None

        wait_for("headscale answers", ready)
        self._run("users", "create", USER)
        return self

    def auth_key(self) -> str:
        """A key that lets any number of devices in."""
        made = self._run("preauthkeys", "create", "--user=1", "--reusable")
        return str(made["key"]) if isinstance(made, dict) else str(made)

    def _run(self, *arguments: str, check: bool = True) -> object:
        done = self.namespace.run(*self._command, *arguments, "--output=json", check=check)
        return json.loads(done.stdout) if done.returncode == 0 else None
