"""A second relay on the lab's internet: ``trenza-relay`` on a host of its own, one tailnet's."""

from __future__ import annotations

import hashlib
import json
import secrets
import ssl
import sys
from typing import Any

from tests.lab.net import Namespace
from tests.lab.processes import CHECKOUT, Daemon, clean_environment, wait_for
from tests.lab.server import Server

DERP_PORT, STUN_PORT = 443, 3478
CERTIFICATE = "relay.crt"
ADD = """
import django, json, sys
django.setup(set_prefix=False)
from accounts.changes import ChangedRow, record_change
from accounts.credentials import digest
from accounts.models import Tailnet
from controlplane.models import Relay
from django.db import transaction
said = json.loads(sys.argv[1])
with transaction.atomic():
    tailnet = Tailnet.objects.get(name=said.pop("tailnet"))
    relay = Relay.objects.create(tailnet=tailnet, token_hash=digest(said.pop("token")), **said)
    record_change(tailnet, [ChangedRow("relay", relay.pk)])
"""


class OwnRelay:
    """Runs in ``namespace`` for ``tailnet``, whose nodes know it as region ``region``, ``code``."""

    def __init__(self, namespace: Namespace, server: Server, tailnet: str, *, region: int, code: str) -> None:
        self.namespace = namespace
        self.server = server
        self.tailnet = tailnet
        self.region = region
        self.code = code
        self.data = namespace.folder / "relay"
        self.token = secrets.token_urlsafe(32)
        self.daemon = Daemon(
            namespace,
            [sys.executable, "-m", "relay"],
            namespace.folder / "relay.log",
            clean_environment(
                TRENZA_RELAY_LISTEN=f"0.0.0.0:{DERP_PORT}",
                TRENZA_RELAY_STUN=f"0.0.0.0:{STUN_PORT}",
                TRENZA_RELAY_DATA=str(self.data),
                TRENZA_RELAY_HOSTS=namespace.address4,
                TRENZA_RELAY_CONTROL_URL=server.url,
                TRENZA_RELAY_TOKEN=self.token,
            ),
        )

    def start(self) -> OwnRelay:
        """Start it and have it told to the tailnet's nodes."""
        self.daemon.start()
        certificate = self.data / CERTIFICATE
        wait_for("the relay has made its certificate", certificate.exists)
        raw = ssl.PEM_cert_to_DER_cert(
            certificate.read_text().partition("-----END CERTIFICATE-----")[0] + END
        )
        self._add(cert_name="sha256-raw:" + hashlib.sha256(raw).hexdigest())
        return self

    def _add(self, **values: Any) -> None:
        said = {
            "tailnet": self.tailnet,
            "token": self.token,
            "region_id": self.region,
            "region_code": self.code,
            "region_name": self.code,
            "node_name": f"{self.region}a",
            "host_name": self.namespace.address4,
            "ipv4": self.namespace.address4,
            "ipv6": "none",
            "derp_port": DERP_PORT,
            "stun_port": STUN_PORT,
        } | values
        environment = dict(self.server.environment) | {"DJANGO_SETTINGS_MODULE": "controlplane.settings"}
        command = [sys.executable, "-c", ADD, json.dumps(said)]
        self.server.namespace.run(*command, environment=environment | {"PYTHONPATH": str(CHECKOUT)})

    def vanish(self) -> None:
        """Its host is gone without a word: nothing is refused or reset, nothing answers."""
        self.namespace.ip("link set eth0 down")


END = "-----END CERTIFICATE-----\n"
