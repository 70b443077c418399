"""A policy that is edited, by what goes through the tunnels of an official client and of ours."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import World
from tests.lab.knocking import Echoes, Kept, Knocking
from tests.lab.net import PATIENCE
from tests.lab.node import Node
from tests.lab.processes import wait_for
from tests.lab.server import TAILNET

pytestmark = [pytest.mark.root, pytest.mark.needs("tailscaled", "tailscale")]

EFFECT_SECONDS = 2.0 * PATIENCE
KEPT, CLOSED = 7001, 7002  # the ports: one that stays open, one that an edit closes
LATER_SECONDS = 1.0  # what is watched once an edit has taken effect
NOBODY: dict[str, Any] = {"acls": []}


class Policy:
    """The tailnet's policy, as the operator sets it."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world = world
        self._file = folder / "policy.hujson"

    def save(self, content: Mapping[str, Any]) -> float:
        """Returns the moment it was saved."""
        self._file.write_text(f"// An edit.\n{json.dumps(content)}")
        self._world.server.manage("setpolicy", TAILNET, str(self._file), "--json")
        return time.monotonic()


def between(one: Node, other: Node, *ports: int) -> dict[str, Any]:
    """Each may reach these ports of the other."""
    hosts = {node.name: node.address() for node in (one, other)}
    opened = ",".join(map(str, ports))
    return {
        "hosts": hosts,
        "acls": [
            {"action": "accept", "src": [source.name], "dst": [f"{target.name}:{opened}"]}
            for source, target in ((one, other), (other, one))
        ],
    }


@pytest.fixture
def policy(world: World, tmp_path: Path) -> Iterator[Policy]:
    made = Policy(world, tmp_path)
    yield made
    made.save({"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]})


@contextmanager
def knocking(one: Node, other: Node, port: int) -> Iterator[tuple[Knocking, Knocking]]:
    """From each to the other."""
    with (
        Knocking(one.namespace, other.address(), port) as there,
        Knocking(other.namespace, one.address(), port) as back,
    ):
        yield there, back


def test_an_edit_takes_effect_at_once_in_an_official_client_and_in_ours(world: World, policy: Policy) -> None:
    ours, official = world.trenza("pol-ours", world.easy1), world.official("pol-offi", world.easy2)
    for node in (ours, official):
        world.join(node)
    policy.save(NOBODY)
    with ExitStack() as stack:
        for node in (ours, official):
            stack.enter_context(Echoes(node.namespace, (KEPT, CLOSED)))
        stays = stack.enter_context(knocking(ours, official, KEPT))
        closes = stack.enter_context(knocking(ours, official, CLOSED))
        wait_for("they do not know each other", lambda: not ours.knows("pol-offi"))
        wait_for("they do not know each other", lambda: not official.knows("pol-ours"))

        saved = policy.save(NOBODY)
        time.sleep(LATER_SECONDS)
        for one in (*stays, *closes):
            assert not any(one.worked_since(saved)), one.name

        # A peer appears.
        saved = policy.save(between(ours, official, KEPT, CLOSED))
        for one in (*stays, *closes):
            assert one.opened_after(saved, seconds=20) <= EFFECT_SECONDS, one.name
        assert ours.knows("pol-offi")
        assert official.knows("pol-ours")
        kept = [
            Kept(ours.namespace, official.address(), CLOSED),
            Kept(official.namespace, ours.address(), CLOSED),
        ]
        assert [one.works() for one in kept] == [True, True]

        # A port closes, for what is begun: what runs goes on.
        saved = policy.save(between(ours, official, KEPT))
        time.sleep(EFFECT_SECONDS + LATER_SECONDS)
        for one in closes:
            assert not any(one.worked_since(saved + EFFECT_SECONDS)), one.name
        for one in stays:
            assert all(one.worked_since(saved)), one.name
        assert [one.works() for one in kept] == [True, True]

        # The peer is gone, and with it all that ran.
        saved = policy.save(NOBODY)
        time.sleep(EFFECT_SECONDS + LATER_SECONDS)
        for one in (*stays, *closes):
            tried = one.worked_since(saved + EFFECT_SECONDS)
            assert tried, one.name
            assert not any(tried), one.name
        assert [one.works() for one in kept] == [False, False]
        assert not ours.knows("pol-offi")
        assert not official.knows("pol-ours")
        for one in kept:
            one.close()


def test_who_alone_has_something_to_say_to_a_new_peer_is_heard_at_once(world: World, policy: Policy) -> None:
    """Nobody speaks first but the one that is let in: both have to know of each other by then."""
    ours, official = world.trenza("new-ours", world.easy1), world.official("new-offi", world.easy2)
    for node in (ours, official):
        world.join(node)
    with Echoes(ours.namespace, [KEPT]), Echoes(official.namespace, [KEPT]):
        for source, target in ((official, ours), (ours, official)):
            policy.save(NOBODY)
            wait_for("they do not know each other", lambda: not ours.knows("new-offi"))
            wait_for("they do not know each other", lambda: not official.knows("new-ours"))
            with Knocking(source.namespace, target.address(), KEPT) as knocks:
                saved = policy.save(between(ours, official, KEPT))
                assert knocks.opened_after(saved, seconds=20) <= EFFECT_SECONDS, knocks.name


def test_what_a_policy_forbids_stays_so_while_a_daemon_dies_and_begins_anew(
    world: World, policy: Policy
) -> None:
    guarded, other = world.trenza("pol-dies", world.easy1), world.trenza("pol-asks", world.easy2)
    for node in (guarded, other):
        world.join(node)
    policy.save(between(guarded, other, KEPT))
    with (
        Echoes(guarded.namespace, (KEPT, CLOSED)),
        Knocking(other.namespace, guarded.address(), KEPT) as stays,
        Knocking(other.namespace, guarded.address(), CLOSED) as closed,
    ):
        stays.opened_after(time.monotonic(), seconds=20)
        wait_for("the other port is closed", lambda: [one.worked for one in closed.tries[-3:]] == [False] * 3)
        since = time.monotonic()
        guarded.daemon.signal(signal.SIGKILL)
        died = time.monotonic()
        time.sleep(LATER_SECONDS)
        stays.opened_after(died, seconds=20)
        guarded.start()
        guarded.wait_state("Running")
        begun = time.monotonic()
        stays.opened_after(begun, seconds=20)
        guarded.namespace.run("nft", "flush", "ruleset")
        wait_for(
            "the filter is back",
            lambda: "from_tunnel" in guarded.namespace.run("nft", "list", "ruleset").stdout,
        )
        flushed = time.monotonic()
        time.sleep(LATER_SECONDS)
        assert not any(closed.worked_since(flushed))
        tried = [one for one in closed.tries if since < one.begun < begun]
        assert tried
        assert not any(one.worked for one in tried)
        guarded.stop()  # in order: the tunnel ends before its filter does
        assert not any(one.worked for one in closed.tries if one.begun > flushed)
