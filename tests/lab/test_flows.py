"""Network flow logs: what two nodes tell of real traffic is what was sent, and only while it is wanted."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from client.flows.reporter import PERIOD_SECONDS, SPREAD_SECONDS
from tests.lab.conftest import World
from tests.lab.net import LabError
from tests.lab.node import Node
from tests.lab.processes import wait_for
from tests.lab.server import OWNER, TAILNET
from tests.lab.services import ask, web_server
from tests.lab.test_paths import introduce
from tests.lab.traffic import ping
from tests.lab.trenza import TrenzaNode

pytestmark = [pytest.mark.root, pytest.mark.needs("wireguard-go")]

REPORT_SECONDS = PERIOD_SECONDS + SPREAD_SECONDS + 25.0
ICMP, TCP = 1, 6
PINGS, PING_BYTES = 20, 84
PORT, MEGABYTE = 8000, 1_000_000
COUNTS = ("txPkts", "txBytes", "rxPkts", "rxBytes")
Log = dict[str, Any]


def switch(world: World, *, on: bool) -> None:
    world.server.manage("tailnetsettings", TAILNET, f"flow_logging={'on' if on else 'off'}")


def counts_flows(node: TrenzaNode) -> bool:
    """Of a node with root: the table is in the host's own network."""
    return "trenza-flows" in node.namespace.run("nft", "list", "tables").stdout


def logs(world: World, token: str) -> list[Log]:
    """What the API has of the last hour."""
    now = datetime.now(UTC)
    start, end = ((now + timedelta(minutes=minutes)).isoformat() for minutes in (-60, 1))
    path = f"/api/v2/tailnet/-/logging/network?start={quote(start)}&end={quote(end)}"
    with world.desk.entered():
        connection = http.client.HTTPConnection(urlsplit(world.server.url).netloc, timeout=20)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
    if answer.status != 200:
        raise LabError(f"{path}: {answer.status} {body.decode()}")
    return list(json.loads(body)["logs"])


def flows(found: list[Log], node_id: str, kind: str = "virtual") -> Iterator[Log]:
    for log in found:
        if log["nodeId"] == node_id:
            yield from log.get(f"{kind}Traffic", ())


def summed(found: list[Log], node_id: str, proto: int, peer: Node, *, port: int | None = None) -> Log:
    """All that a node told of one protocol with a peer's IPv4 address (and a port of either side)."""
    total = dict.fromkeys(COUNTS, 0)
    for flow in flows(found, node_id):
        ends = (flow["src"], flow["dst"])
        fits = port is None or any(end.endswith(f":{port}") for end in ends)
        if flow["proto"] == proto and flow["dst"].startswith(f"{peer.address()}:") and fits:
            total = {name: total[name] + flow.get(name, 0) for name in COUNTS}
    return total


def test_what_two_nodes_tell_is_what_was_sent(world: World) -> None:
    ned, rut = world.trenza("ned", world.easy1), world.rootless("rut", world.easy2)
    for node in (ned, rut):
        world.join(node)
    introduce(ned, rut)
    token = world.server.manage("createapitoken", TAILNET, "--user", OWNER, "--json")["key"]
    ids = {name: str(device["nodeId"]) for name, device in world.server.nodes().items()}
    assert not counts_flows(ned)
    assert logs(world, token) == []
    switch(world, on=True)
    for node in (ned, rut):
        wait_for(f"{node.name} counts", lambda node=node: "logs network flows" in node.daemon.tail())  # type: ignore[misc]
    lost = ping(ned.namespace, rut.address(), count=PINGS).lost
    with web_server(rut.namespace, "127.0.0.1", PORT):
        assert len(ask(ned.namespace, rut.address(), PORT, f"/{MEGABYTE}")[2]) == MEGABYTE

    def both() -> list[Log]:
        found = logs(world, token)
        told = [
            summed(found, ids["ned"], TCP, rut, port=PORT)["rxBytes"],
            summed(found, ids["rut"], TCP, ned, port=PORT)["txBytes"],
        ]
        return found if min(told) >= MEGABYTE else []

    found = wait_for("both have told", both, seconds=REPORT_SECONDS)
    there, back = (summed(found, ids[one], ICMP, other) for one, other in (("ned", rut), ("rut", ned)))
    assert (there["txPkts"], there["txBytes"]) == (PINGS, PINGS * PING_BYTES)
    assert PINGS - lost <= there["rxPkts"] <= PINGS
    assert (back["txPkts"], back["rxPkts"]) == (there["rxPkts"], PINGS) or lost
    got = summed(found, ids["ned"], TCP, rut, port=PORT)
    sent = summed(found, ids["rut"], TCP, ned, port=PORT)
    # The content and its headers, of which several segments that the kernel handles as one have one.
    for size in (got["rxBytes"], sent["txBytes"]):
        assert MEGABYTE < size < 1.1 * MEGABYTE
    carried = [flow for flow in flows(found, ids["ned"], "physical") if flow["src"] == f"{rut.address()}:0"]
    assert sum(flow["rxBytes"] for flow in carried) > got["rxBytes"]
    assert {flow["dst"].partition(":")[0] for flow in carried} <= {
        "127.3.3.40",
        world.easy2.namespace.address4,
    }
    switch(world, on=False)
    wait_for("ned counts no more", lambda: not counts_flows(ned))
    assert ping(ned.namespace, rut.address(), count=3).received
