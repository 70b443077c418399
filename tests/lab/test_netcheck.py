"""What ``trenza netcheck`` finds out with one relay only, and in a network with a captive portal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab.conftest import World
from tests.lab.net import Router
from tests.lab.processes import wait_for
from tests.lab.server import PORT
from tests.lab.trenza import TrenzaNode

pytestmark = pytest.mark.root

PORTAL_PORT = 8081
PORTAL = """
import http.server, sys
class Portal(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302)
        self.send_header("Location", "http://portal.hotel.example/login")
        self.end_headers()
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Portal).serve_forever()
"""
CAUGHT = f"""
table inet portal {{
  chain caught {{
    type nat hook prerouting priority -150;
    iifname "lan" tcp dport {PORT} redirect to :{PORTAL_PORT};
  }}
}}
"""


@pytest.fixture
def hotel(world: World) -> Iterator[Router]:
    """A router with a portal's web server, which nobody is led to yet; it is itself again afterwards."""
    router = world.easy1.namespace
    portal = router.spawn(sys.executable, "-c", PORTAL, str(PORTAL_PORT), stderr=subprocess.DEVNULL)
    wait_for("the portal listens", lambda: router.run("ss", "-Hltn", f"sport = :{PORTAL_PORT}").stdout)
    yield world.easy1
    portal.kill()
    portal.wait()
    world.easy1.block_udp(False)


def report(node: TrenzaNode) -> dict[str, object]:
    return dict(json.loads(node.cli("netcheck", "--format=json").stdout))


def test_netcheck_tells_an_easy_nat_with_one_relay_and_a_captive_portal(world: World, hotel: Router) -> None:
    cat = world.trenza("cat", hotel)
    world.join(cat)
    before = report(cat)
    assert (before["UDP"], before["IPv4"], before["MappingVariesByDestIP"]) == (True, True, False)
    assert before["CaptivePortal"] is False
    assert (before["UPnP"], before["PMP"], before["PCP"]) == (False, False, False)
    assert str(before["GlobalV4"]).startswith(hotel.namespace.address4)
    hotel.block_udp(True)
    hotel.namespace.run("nft", "-f", "-", stdin=CAUGHT)
    after = cat.cli("netcheck").stdout
    assert "UDP: false" in after
    assert "CaptivePortal: true" in after
    assert any("captive portal" in trouble for trouble in cat.status()["Health"])
