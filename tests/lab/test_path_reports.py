"""A device's page in the panel shows by which paths it talks, and why not directly, as its client reports."""

from __future__ import annotations

import pytest

from tests.lab.conftest import World
from tests.lab.processes import wait_for
from tests.lab.test_paths import introduce
from tests.lab.traffic import Ping

pytestmark = pytest.mark.root

REPORT_SECONDS = 60.0  # at most two reports a minute


def test_the_panel_shows_direct_paths_and_why_others_are_relayed(world: World) -> None:
    nan, obi, pip = (
        world.trenza("nan", world.easy1),
        world.trenza("obi", world.easy2),
        world.trenza("pip", world.blocked),
    )
    for node in (nan, obi, pip):
        world.join(node)
    introduce(nan, obi)
    introduce(nan, pip)
    talks = [Ping(nan.namespace, peer.address(), count=600, interval=0.2) for peer in (obi, pip)]
    try:
        endpoint = nan.direct("obi")
        person = world.server.person(world.desk)
        device = f"/devices/{world.server.nodes()['nan']['nodeId']}"

        def told() -> str:
            page = person.open(device).text
            return page if endpoint in page and "UDP may be blocked there" in page else ""

        page = wait_for("the panel knows nan's paths", told, seconds=REPORT_SECONDS)
        assert "relay: " in page
        assert "obi" in page
        status = nan.cli("status").stdout
        assert "pip: the peer knows no public address of its own: UDP may be blocked there" in status
        assert "obi:" not in status
    finally:
        for talk in talks:
            talk.close()
