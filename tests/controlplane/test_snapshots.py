"""What of the rows reaches netmaps and relays."""

from __future__ import annotations

import pytest

from accounts.actors import Actor
from accounts.models import Membership, Tailnet
from accounts.services.people import restore_member, suspend_member
from accounts.tenancy import scope
from controlplane.netmap.snapshot import Standing, TailnetSnapshot
from controlplane.snapshots import load_nodes, load_served_keys, load_tailnet
from nodes.models import Node
from tests.accounts import factories as people
from tests.nodes import factories

pytestmark = pytest.mark.django_db


def snapshot(of: Tailnet) -> TailnetSnapshot:
    found = load_tailnet(of.pk)
    assert found is not None
    return found


def change(tailnet: Tailnet, member: Membership, how: str) -> None:
    with scope(tailnet=tailnet):
        {"suspend": suspend_member, "restore": restore_member}[how](membership=member, by=Actor.command())


def devices() -> tuple[Tailnet, Membership, Node, Node]:
    """A member's device and a tagged one."""
    tailnet, _owner = people.tailnet()
    member = people.member(tailnet)
    own = factories.node(tailnet, member.user, preapproved=True)
    tagged = factories.node(tailnet, tags=["tag:server"], preapproved=True)
    return tailnet, member, own, tagged


def test_a_suspended_persons_device_is_cut_off_until_they_are_restored() -> None:
    tailnet, member, own, tagged = devices()
    for how, standing, keys in (
        ("suspend", Standing.PENDING, {tagged.node_key}),
        ("restore", Standing.ACTIVE, {own.node_key, tagged.node_key}),
    ):
        change(tailnet, member, how)
        whole = snapshot(tailnet)
        assert whole.nodes[own.pk].standing is standing
        assert load_nodes(whole, {own.pk}, whole.version).nodes[own.pk].standing is standing
        assert whole.nodes[tagged.pk].standing is Standing.ACTIVE
        assert set(load_served_keys(tailnet.pk)[1]) == keys


def test_a_switched_off_persons_device_is_cut_off() -> None:
    tailnet, member, own, _tagged = devices()
    member.user.is_active = False
    member.user.save(update_fields=["is_active"])
    assert snapshot(tailnet).nodes[own.pk].standing is Standing.PENDING
    assert own.node_key not in load_served_keys(tailnet.pk)[1]
