"""Names through an exit node with an official client on either side; the network around hears nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.conftest import World
from tests.lab.internet import Watch
from tests.lab.nameserver import NameServer, address_of, use_nameserver
from tests.lab.node import Node
from tests.lab.official import OfficialNode
from tests.lab.processes import wait_for
from tests.lab.traffic import ping, reachable

pytestmark = [pytest.mark.root, pytest.mark.needs("tailscaled", "tailscale")]

NAME, ADDRESS = "www.example.net", "203.0.113.81"
SUFFIX = "default.tailnet.internal"


@pytest.fixture(scope="module")
def names(lasting_world: World) -> Iterator[NameServer]:
    """What every host of these tests was given as its resolver."""
    with NameServer(lasting_world.lab.host("names"), {NAME: ADDRESS}) as server:
        yield server


def client(world: World, names: NameServer, where: object, *options: str, official: bool) -> Node:
    make = world.official if official else world.trenza
    made = make(world.name(), where, start=False)  # type: ignore[operator]
    if isinstance(made, OfficialNode):
        (made.private["/etc"] / "resolv.conf").write_text(f"nameserver {names.namespace.address4}\n")
    else:
        use_nameserver(made.namespace, names.namespace.address4)
    made.start()
    world.join(made, *options)
    return made


def found_by(node: Node, name: str) -> str:
    return address_of(node.namespace, name, node.private if isinstance(node, OfficialNode) else None)


@pytest.mark.parametrize("exit_is_official", [True, False])
def test_the_exit_node_asks_for_those_who_use_it(
    world: World, names: NameServer, exit_is_official: bool
) -> None:
    out = client(world, names, world.lab, "--advertise-exit-node", official=exit_is_official)
    user = client(world, names, world.six1, official=not exit_is_official)
    wait_for("the offer arrives", lambda: world.server.approve_routes(out.name)["approved"])
    wait_for(f"{user.name} may use {out.name}", lambda: user.peer(out.name)["ExitNodeOption"])
    reachable(user.namespace, out.address())
    user.cli("set", f"--exit-node={out.name}")

    def found_by_the_exit_node() -> bool:
        names.asked.clear()
        return found_by(user, NAME) == ADDRESS and {by for _, by in names.asked} == {out.namespace.address4}

    wait_for("the exit node asks", found_by_the_exit_node)
    watch = Watch(world.six1, user.namespace)
    try:
        names.asked.clear()
        assert found_by(user, "nothing.example.net") == ""
        assert found_by(user, f"{out.name}.{SUFFIX}") == out.address()
        assert {by for _, by in names.asked} == {out.namespace.address4}
        assert names.was_asked("nothing.example.net")
        # Shields keep connections out, yet the same person's devices find names there as before.
        out.cli("set", "--shields-up")
        wait_for("the shields are up", lambda: ping(user.namespace, out.address(), count=1).lost == 1)
        names.asked.clear()
        assert found_by(user, "shielded.example.net") == ""
        assert {by for _, by in names.asked} == {out.namespace.address4}
        assert watch.counts() == (0, 0)
    finally:
        watch.clear()
