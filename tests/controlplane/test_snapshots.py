"""What of the rows reaches netmaps and relays."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.actors import Actor
from accounts.models import Membership, Tailnet, User
from accounts.roles import Role
from accounts.services.groups import set_groups
from accounts.services.people import restore_member, suspend_member
from accounts.tenancy import scope
from controlplane.netmap.engine import Engine
from controlplane.netmap.snapshot import Standing, TailnetSnapshot
from controlplane.snapshots import ServedKeys, load_nodes, load_served_keys, load_tailnet
from nodes.models import Node
from nodes.offers import subnets_of
from nodes.selectors import nodes
from nodes.services.posture import Wanted, delete_expired, set_attributes
from nodes.services.presence import claim_presence, release_presence
from nodes.services.routes import set_approved_routes
from nodes.services.volatile import Volatile, update_node_state
from tests.accounts import factories as people
from tests.nodes import factories

pytestmark = pytest.mark.django_db


def snapshot(of: Tailnet) -> TailnetSnapshot:
    found = load_tailnet(of.pk)
    assert found is not None
    return found


def served(of: Tailnet) -> ServedKeys:
    found = load_served_keys(of.pk)
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
        assert set(served(tailnet).keys) == keys


def test_a_switched_off_persons_device_is_cut_off() -> None:
    tailnet, member, own, _tagged = devices()
    member.user.is_active = False
    member.user.save(update_fields=["is_active"])
    assert snapshot(tailnet).nodes[own.pk].standing is Standing.PENDING
    assert own.node_key not in served(tailnet).keys


def test_relays_are_told_until_when_their_list_stands() -> None:
    tailnet, _member, own, tagged = devices()
    assert served(tailnet).until == own.key_expiry, "a tagged device's key does not end"
    soon, later = (timezone.now() + timedelta(seconds=seconds) for seconds in (0.2, 60))
    other = factories.node(tailnet, people.member(tailnet).user, preapproved=True, expiry=later)
    factories.node(tailnet, people.member(tailnet).user, preapproved=True, expiry=soon)
    assert served(tailnet).until == soon
    while timezone.now() <= soon:
        time.sleep(0.05)
    assert served(tailnet).until == later
    assert set(served(tailnet).keys) == {own.node_key, tagged.node_key, other.node_key}
    tailnet_id = tailnet.pk
    with scope(tailnet=tailnet):
        tailnet.delete()
    assert load_served_keys(tailnet_id) is None


LAN = "10.7.0.0/16"


def carriers(tailnet: Tailnet) -> list[int]:
    """Who carries the subnet for a worker that has just loaded the tailnet, and by the devices' own pages."""
    snapshots = Engine(snapshot(tailnet)).snapshot.nodes.values()
    elected = [one.id for one in snapshots if LAN in one.primary_routes]
    with scope(tailnet=tailnet):
        shown = [
            node.pk
            for node in nodes()
            if any(one.carries for one in subnets_of(node, among=nodes(), now=timezone.now()))
        ]
    assert shown == elected
    return elected


def test_every_worker_elects_the_same_carrier_from_the_rows() -> None:
    tailnet, owner = people.tailnet()
    offer = {"Hostname": "router", "RoutableIPs": [LAN]}
    routers = [factories.node(tailnet, owner, preapproved=True, hostinfo=offer) for _ in range(2)]
    start = timezone.now()
    epochs = {}
    for node in routers:
        report = Volatile(node_id=node.pk, disco_key=f"discokey:{node.pk:064x}")
        update_node_state(tailnet=tailnet, report=report)
        with scope(tailnet=tailnet):
            set_approved_routes(node=node, prefixes=[LAN], by=Actor.command(), now=start - timedelta(days=1))

    def claim(node: Node, seconds: int) -> None:
        epochs[node.pk] = claim_presence(
            tailnet=tailnet, node_id=node.pk, worker="w", now=start + timedelta(seconds=seconds)
        )

    first, second = routers
    claim(second, 0)
    assert carriers(tailnet) == [second.pk], "the only one that is online"
    claim(first, 1)
    assert carriers(tailnet) == [second.pk]
    claim(second, 2)
    assert carriers(tailnet) == [second.pk], "a reconnect is no reason to move"
    release_presence(tailnet=tailnet, node_id=second.pk, epoch=epochs[second.pk])
    assert carriers(tailnet) == [first.pk]
    claim(second, 3)
    assert carriers(tailnet) == [first.pk]
    set_route_of(tailnet, first, [])
    assert carriers(tailnet) == [second.pk]


def set_route_of(tailnet: Tailnet, node: Node, prefixes: list[str]) -> None:
    with scope(tailnet=tailnet):
        set_approved_routes(node=node, prefixes=prefixes, by=Actor.command())


def test_people_are_known_by_role_and_groups_and_devices_by_attributes() -> None:
    """Also after a change of the row alone; who was suspended has neither role nor groups."""
    tailnet, member, own, _tagged = devices()
    User.objects.filter(pk=member.user_id).update(groups=["group:told"])
    set_groups(membership=member, groups=["group:given"], by=Actor.command())
    whole = snapshot(tailnet)
    person = whole.users[member.user_id]
    assert (person.role, person.groups) == ("member", ("group:given", "group:told"))
    without_devices = people.member(tailnet, Role.AUDITOR).user_id
    assert snapshot(tailnet).users[without_devices].role == "auditor"

    with scope(tailnet=tailnet):
        set_attributes(changes={own: {"custom:tier": Wanted("gold")}}, by=Actor.command())
        update_node_state(
            tailnet=tailnet, report=Volatile(node_id=own.pk, hostinfo={"OS": "linux", "Hostname": "renamed"})
        )
    for read in (snapshot(tailnet), load_nodes(whole, {own.pk}, whole.version)):
        attributes = read.nodes[own.pk].attributes
        assert (attributes["node:os"], attributes["custom:tier"]) == ("linux", "gold")

    change(tailnet, member, "suspend")
    for read in (snapshot(tailnet), load_nodes(whole, {own.pk}, whole.version)):
        assert (read.users[member.user_id].role, read.users[member.user_id].groups) == ("", ())


def test_an_attribute_whose_time_is_over_is_gone_and_netmaps_hear_of_it() -> None:
    tailnet, _member, own, _tagged = devices()
    soon = timezone.now() + timedelta(hours=1)
    with scope(tailnet=tailnet):
        before = snapshot(tailnet).version
        set_attributes(
            changes={own: {"custom:a": Wanted(1, soon), "custom:b": Wanted(2)}}, by=Actor.command()
        )
        assert snapshot(tailnet).version == before + 1
        assert delete_expired(tailnet=tailnet) == 0
        assert snapshot(tailnet).version == before + 1
        assert delete_expired(tailnet=tailnet, now=soon) == 1
    after = snapshot(tailnet)
    assert after.version == before + 2
    assert "custom:a" not in after.nodes[own.pk].attributes
    assert after.nodes[own.pk].attributes["custom:b"] == 2
