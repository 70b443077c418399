"""An exit node approved and set for a device in the panel, by what the internet sees of that device."""

from __future__ import annotations

import pytest

from tests.lab.conftest import World
from tests.lab.internet import Internet, seen_as
from tests.lab.processes import wait_for

pytestmark = pytest.mark.root


def test_an_administrator_sets_and_undoes_a_devices_exit_node(world: World) -> None:
    out, pat = world.trenza("out-p", world.lab), world.trenza("pat", world.six1)
    world.join(out, "--advertise-exit-node")
    world.join(pat)
    admin, nodes = world.server.person(world.desk), world.server.nodes()
    switch = f"/devices/{nodes['out-p']['nodeId']}"
    card = f"/devices/{nodes['pat']['nodeId']}"
    wait_for("the offer is shown", lambda: "Waiting for approval" in admin.open(switch).text)
    page = admin.open(switch)
    admin.send(page, page.form("/approve-exit-node"), approved="1")

    def choose(exit_node: str) -> None:
        page = admin.open(card)
        answer = admin.send(page, page.form("/use-exit-node"), exit_node=exit_node)
        assert answer.status == 200, answer.text

    with Internet(world.lab.internet):
        wait_for("pat may use it", lambda: pat.peer("out-p")["ExitNodeOption"])
        choose(nodes["out-p"]["nodeId"])
        seen_as(pat.namespace, out.namespace.address4, out.namespace.address6)
        wait_for("the page says so", lambda: "set by administrator" in admin.open(card).text)
        assert "administrator" in pat.cli("status").stdout
        choose("")
        seen_as(pat.namespace, world.six1.namespace.address4, pat.namespace.address6)
        wait_for("the page says so", lambda: "Uses no exit node:" in admin.open(card).text)

        # What the person at the device chooses is shown, and is not the administrator's.
        pat.cli("set", "--exit-node=out-p")
        wait_for("the page says so", lambda: "Uses exit node out-p" in admin.open(card).text)
        assert "set by administrator" not in admin.open(card).text
