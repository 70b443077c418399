"""A real server with a tailnet that has some of everything, for programs that know it by its API alone."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.browser.server import Device
from tests.commands import Operator
from tests.controlplane.serving import READY_SECONDS, Serve
from wire.codec import decode_json
from wire.flows import PATH, Flow, FlowReport, report_json

ROUTES = ["10.1.0.0/16", "10.2.0.0/16"]
REGION = 900
NET_INFO = {
    "WorkingUDP": True,
    "WorkingIPv6": False,
    "PMP": True,
    "MappingVariesByDestIP": True,
    "PreferredDERP": REGION,
    "DERPLatency": {f"{REGION}-v4": 0.0125, "901-v4": 0.25},
}
ROUTER: dict[str, Any] = {
    "RoutableIPs": ROUTES,
    "Distro": "debian",
    "DistroVersion": "13.1",
    "DistroCodeName": "trixie",
    "OSVersion": "6.12.1",
    "sshHostKeys": ["ssh-ed25519 AAAA"],
    "NetInfo": NET_INFO,
}
SSH = Flow(proto=6, src="100.64.0.1:40000", dst="100.64.0.2:22", tx_packets=5, tx_bytes=500, rx_bytes=90)
WEB = Flow(proto=6, src="100.64.0.1:40001", dst="10.1.0.8:443", tx_bytes=300, rx_bytes=4000)
CARRIED = Flow(src="100.64.0.2:0", dst="192.0.2.7:41641", tx_packets=3, tx_bytes=800)


class Harbour(Serve):
    """The server. Of its devices ``router`` is connected, ``base`` is tagged and ``guest`` not approved."""

    def __init__(self, data: Path) -> None:
        mail = "smtp+plain://127.0.0.1:9?from=vpn@example.com"  # to where nothing takes it
        super().__init__(data, TRENZA_EMAIL_URL=mail)
        self.devices: dict[str, Device] = {}

    @property
    def local_url(self) -> str:
        """Where it listens."""
        return self.url

    @cached_property
    def _operator(self) -> Operator:
        return Operator(self.environment)

    def ask(self, function: str, **arguments: Any) -> Any:
        """What a function of :mod:`tests.controlplane.clients.holdings` returns."""
        told = repr(json.dumps(arguments))
        code = f"from tests.controlplane.clients import holdings; holdings.tell({function!r}, {told})"
        return json.loads(self._operator.run("shell", "--no-imports", "-c", code))

    def rows(self, model: str, **filters: Any) -> list[dict[str, Any]]:
        """Rows of the tailnet as the database has them."""
        return list(self.ask("rows", model=model, **filters))

    def row(self, model: str, **filters: Any) -> dict[str, Any]:
        """The one row that fits."""
        (found,) = self.rows(model, **filters)
        return found

    def node(self, hostname: str) -> dict[str, Any]:
        """A device's row."""
        return self.row("nodes.Node", hostname=hostname)

    @cached_property
    def made(self) -> dict[str, Any]:
        """Ids and secrets of the tailnet, which is made now."""
        return dict(self.ask("make"))

    def join(self, hostname: str, key: str, **hostinfo: Any) -> Device:
        """A machine that joins by one of the keys."""
        device = self.devices[hostname] = Device(self, hostname, **hostinfo)  # type: ignore[arg-type]
        device.register(auth_key=self.made[key])
        return device

    def online(self, hostname: str) -> None:
        """Have a device answer what the server asked meanwhile, as clients do."""
        self.devices[hostname].catch_up()

    def populate(self) -> None:
        """Let the devices join, and one of them tell whom it talked to."""
        router = self.join("router", "own_key", **ROUTER)
        router.listen()
        self.join("laptop", "own_key").close()
        self.join("base", "tagged_key").close()
        self.join("guest", "waiting_key").close()
        now = datetime.now(UTC)
        report = FlowReport(
            start=now - timedelta(minutes=1), end=now, virtual=(SSH,), subnet=(WEB,), physical=(CARRIED,)
        )
        answer = decode_json(router._ask(PATH, report_json(router.node.public(), report)))
        assert answer == {}, answer
        deadline = time.monotonic() + READY_SECONDS  # what it said of its network is written behind
        while self.node("router")["home_derp"] != REGION:
            assert time.monotonic() < deadline, self.node("router")
            time.sleep(0.2)

    def stop(self) -> None:
        for device in self.devices.values():
            device.close()
        if "_operator" in vars(self):
            self._operator.close()
        super().stop()


@contextlib.contextmanager
def harbour(data: Path) -> Iterator[Harbour]:
    """The server, running, with everything in it; it has logged no bug of its own at the end."""
    server = Harbour(data)
    server.prepare()
    server.start()
    try:
        server.populate()
        yield server
    finally:
        server.stop()
    assert "Traceback" not in server.log(), server.log()


def second(moment: datetime | None) -> str:
    """A moment as the API has it, to the second; "" for none."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stored(moment: str | None) -> str:
    """The same of a moment as a row has it."""
    return second(datetime.fromisoformat(moment) if moment else None)
