"""Who gains and who loses by another policy: by meaning, port by port."""

from __future__ import annotations

import json
from typing import Any

import pytest

from accounts.actors import Actor
from accounts.models import Tailnet
from accounts.tenancy import scope
from controlplane.netmap.policy.gains import Opening
from controlplane.services.policy import PolicyRefused, save_policy
from controlplane.services.policypreview import preview_policy
from nodes.models import Node
from nodes.services.routes import set_approved_routes
from tests.accounts import factories as people
from tests.nodes import factories as machines

pytestmark = pytest.mark.django_db
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
Told = dict[tuple[str, str], tuple[set[tuple[int, int, int, str]], set[tuple[int, int, int, str]]]]


class Net:
    """Two people's devices, and a tagged one with a subnet behind it."""

    def __init__(self) -> None:
        self.tailnet: Tailnet = people.tailnet("ours")[0]
        self.ana, self.ben = (people.member(self.tailnet).user for _ in range(2))
        way = {"Hostname": "db", "RoutableIPs": ["10.0.0.0/8"]}
        self.nodes: dict[str, Node] = {
            "ana": machines.node(self.tailnet, self.ana, hostname="ana", preapproved=True),
            "ben": machines.node(self.tailnet, self.ben, hostname="ben", preapproved=True),
            "db": machines.node(self.tailnet, tags=["tag:db"], hostinfo=way, preapproved=True),
        }
        with scope(tailnet=self.tailnet):
            set_approved_routes(node=self.nodes["db"], prefixes=["10.0.0.0/8"], by=Actor.command())

    def text(self, *rules: tuple[str, str], **sections: Any) -> str:
        acls = [{"action": "accept", "src": [src], "dst": [dst]} for src, dst in rules]
        return json.dumps({"acls": acls, "tagOwners": {"tag:db": []}} | sections)

    def save(self, *rules: tuple[str, str]) -> None:
        save_policy(tailnet=self.tailnet, text=self.text(*rules), by=Actor.command())

    def changes(self, *rules: tuple[str, str]) -> Told:
        """By source and target what is gained and what is lost: of TCP only."""
        names = {node.pk: name for name, node in self.nodes.items()}
        found = preview_policy(tailnet=self.tailnet, text=self.text(*rules)).comparison
        assert found.more == 0
        return {
            (names[source], names[one.target]): (plain(one.gained), plain(one.lost))
            for one in found.changes
            for source in one.sources
        }


def plain(openings: tuple[Opening, ...]) -> set[tuple[int, int, int, str]]:
    return {(one.protocol, one.first, one.last, one.beyond) for one in openings if one.protocol == TCP}


@pytest.fixture
def net() -> Net:
    return Net()


def test_a_rule_more_is_somebodys_gain(net: Net) -> None:
    net.save((net.ana.email, "tag:db:22"))
    found = net.changes((net.ana.email, "tag:db:22"), (net.ben.email, "tag:db:80-81"))
    assert found == {("ben", "db"): ({(TCP, 80, 81, "")}, set())}


def test_a_rule_less_is_somebodys_loss(net: Net) -> None:
    net.save((net.ana.email, "tag:db:22"), (net.ben.email, "tag:db:*"))
    found = net.changes((net.ana.email, "tag:db:22"), (net.ben.email, "tag:db:443"))
    assert found == {("ben", "db"): (set(), {(TCP, 0, 442, ""), (TCP, 444, 65535, "")})}


def test_what_is_written_otherwise_and_means_the_same_changes_nothing(net: Net) -> None:
    net.save((net.ana.email, "tag:db:80-90"))
    split = [(net.ana.email, "tag:db:80-84"), (net.ana.email, "tag:db:85"), (net.ana.email, "tag:db:86-90")]
    assert net.changes(*split) == {}
    assert net.changes(*split, *split) == {}
    address = str(net.nodes["db"].ipv4)
    assert net.changes((net.ana.email, "tag:db:80-90"), (net.ana.email, f"{address}:85")) == {}


def test_a_subnet_behind_a_router_is_told_apart_from_it(net: Net) -> None:
    net.save()
    found = net.changes((net.ana.email, "10.1.0.0/16:22"))
    assert found == {("ana", "db"): ({(TCP, 22, 22, "10.1.0.0/16")}, set())}


def test_from_the_default_to_nothing_everybody_loses_everything(net: Net) -> None:
    found = net.changes()
    assert set(found) == {(one, other) for one in net.nodes for other in net.nodes if one != other}
    assert all(gained == set() and (TCP, 0, 65535, "") in lost for gained, lost in found.values())


def test_devices_for_which_the_same_changes_are_told_together(net: Net) -> None:
    net.save()
    text = net.text(("autogroup:member", "tag:db:22"))
    (one,) = preview_policy(tailnet=net.tailnet, text=text).comparison.changes
    assert set(one.sources) == {net.nodes["ana"].pk, net.nodes["ben"].pk}


def test_a_ping_is_lost_with_the_last_open_port_only(net: Net) -> None:
    net.save((net.ana.email, "tag:db:*"))

    def lost_by(*rules: tuple[str, str]) -> set[int]:
        text = net.text(*rules)
        (one,) = preview_policy(tailnet=net.tailnet, text=text).comparison.changes
        return {opening.protocol for opening in one.lost}

    assert lost_by((net.ana.email, "tag:db:22")) == {TCP, UDP}
    assert lost_by() == {TCP, UDP, ICMP, ICMPV6}


def test_it_is_bounded_and_says_so(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.netmap.policy.gains.MAX_CHANGES", 2)
    found = preview_policy(tailnet=net.tailnet, text=net.text()).comparison
    assert (len(found.changes), found.more) == (2, 1)


def test_a_wrong_text_is_refused_and_failing_tests_are_told(net: Net) -> None:
    with pytest.raises(PolicyRefused):
        preview_policy(tailnet=net.tailnet, text="{")
    tests = [{"src": net.ana.email, "accept": ["tag:db:22"]}]
    preview = preview_policy(tailnet=net.tailnet, text=net.text(tests=tests))
    assert [one.source for one in preview.checked.failures] == [net.ana.email]
    assert preview.comparison.changes
