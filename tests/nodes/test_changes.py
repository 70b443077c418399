"""Whoever refetches only the rows that messages name knows what a full read would say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.db import transaction
from django.utils import timezone

from accounts import changes
from accounts.actors import Actor
from accounts.changes import MAX_ROWS, ChangedRow, record_change, write
from accounts.models import Membership, Tailnet, User
from accounts.services import people as people_services
from accounts.services import tailnets
from accounts.tenancy import scope
from nodes.models import Node, PreAuthKey, Route
from nodes.services import authkeys, lifecycle, routes, volatile
from nodes.services.volatile import Volatile
from tests.accounts import factories as people
from tests.nodes import factories

pytestmark = pytest.mark.django_db(transaction=True)

RECEIVE_SECONDS = 5
ME = Actor.command()
Service = Callable[[Tailnet, User, Node], Any]

# What nodes and pages may see of a row; volatile columns go another way.
VISIBLE: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "node": (
        Node,
        (
            "name",
            "node_key",
            "state",
            "tags",
            "user_id",
            "key_expiry",
            "approved_at",
            "notes",
            "key_expiry_disabled",
        ),
    ),
    "membership": (Membership, ("role", "status")),
    "preauthkey": (PreAuthKey, ("revoked_at",)),
    "tailnet": (Tailnet, ("display_name", "device_approval")),
}

SERVICES: dict[str, Service] = {
    "approve": lambda t, u, n: lifecycle.approve_node(node=n, by=ME),
    "reject": lambda t, u, n: lifecycle.reject_node(node=n, by=ME),
    "delete": lambda t, u, n: lifecycle.delete_node(node=n, by=ME),
    "rename": lambda t, u, n: lifecycle.rename_node(node=n, name="other", by=ME),
    "expire": lambda t, u, n: lifecycle.expire_node(node=n, by=ME),
    "switch expiry off": lambda t, u, n: lifecycle.set_expiry(node=n, disabled=True, by=ME),
    "tag": lambda t, u, n: lifecycle.set_tags(node=n, tags=["tag:web"], by=ME),
    "note": lambda t, u, n: lifecycle.set_notes(node=n, notes="in the attic", by=ME),
    "log out": lambda t, u, n: lifecycle.logout_node(node=n),
    "rotate": lambda t, u, n: lifecycle.rotate_node_key(node=n, new_node_key=factories.node_key()),
    "delete all of a person": lambda t, u, n: lifecycle.delete_nodes_of(tailnet=t, user=u, by=ME),
    "sweep": lambda t, u, n: lifecycle.expire_due(tailnet=t, now=timezone.now() + timedelta(days=181)),
    "join": lambda t, u, n: factories.node(t, u),
    "approve routes": lambda t, u, n: routes.set_approved_routes(node=n, prefixes=["10.0.0.0/8"], by=ME),
    "new host name": lambda t, u, n: volatile.update_node_state(
        tailnet=t,
        report=Volatile(node_id=n.pk, hostinfo={"Hostname": "renamed", "RoutableIPs": ["10.0.0.0/8"]}),
    ),
    "make a key": lambda t, u, n: authkeys.create_auth_key(tailnet=t, by=ME, user=u),
    "add a member": lambda t, u, n: people_services.add_member(tailnet=t, user=people.person(), by=ME),
    "settings": lambda t, u, n: tailnets.update_settings(tailnet=t, by=ME, display_name="Home"),
}


def visible(tailnet: Tailnet) -> dict[tuple[str, int], Any]:
    """Everything, read afresh."""
    with scope(tailnet=tailnet):
        rows: dict[tuple[str, int], Any] = {}
        for name, (model, columns) in VISIBLE.items():
            found = model.objects.filter(pk=tailnet.pk) if model is Tailnet else model.objects.all()
            rows |= {(name, row["pk"]): row for row in found.values("pk", *columns)}
        for node in [key for key in rows if key[0] == "node"]:
            mine = Route.objects.filter(node_id=node[1]).order_by("prefix")
            rows[node]["routes"] = list(mine.values_list("prefix", "approved_at"))
        return rows


def version(tailnet: Tailnet) -> int:
    return Tailnet.objects.get(pk=tailnet.pk).netmap_version


@pytest.fixture
async def loop_set() -> AsyncIterator[None]:
    changes.set_loop(asyncio.get_running_loop())
    yield
    changes.set_loop(None)


async def listen(group: str) -> Callable[[], Any]:
    layer: Any = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(group, channel)

    async def receive() -> dict[str, Any]:
        async with asyncio.timeout(RECEIVE_SECONDS):
            message: dict[str, Any] = await layer.receive(channel)
            return message

    return receive


def _prepare() -> tuple[Tailnet, User, Node]:
    tailnet, owner = people.tailnet()
    node = factories.node(tailnet, owner, hostinfo={"Hostname": "box", "RoutableIPs": ["10.0.0.0/8"]})
    return tailnet, owner, node


@pytest.mark.parametrize("name", SERVICES)
async def test_messages_tell_all_that_changed(name: str, loop_set: None) -> None:
    tailnet, owner, node = await database_sync_to_async(_prepare)()
    stale = await database_sync_to_async(visible)(tailnet)
    before = await database_sync_to_async(version)(tailnet)
    hub, page = await listen(f"tailnet.{tailnet.pk}"), await listen(f"panel.{tailnet.pk}")
    await database_sync_to_async(SERVICES[name])(tailnet, owner, node)
    truth = await database_sync_to_async(visible)(tailnet)
    after = await database_sync_to_async(version)(tailnet)
    assert after > before
    assert truth != stale
    for expected in range(before + 1, after + 1):
        message, shown = await hub(), await page()
        assert (message["type"], message["tailnet"], message["version"]) == (
            "netmap.change",
            tailnet.pk,
            expected,
        )
        assert [(c["type"], c["id"], c["op"]) for c in shown["changes"]] == [
            (row["model"], row["id"], row["op"]) for row in message["rows"]
        ]
        for row in message["rows"]:
            key = (row["model"], row["id"])
            stale.pop(key, None)
            if row["op"] == "upsert" and key in truth:
                stale[key] = truth[key]
            assert (row["op"] == "delete") == (key not in truth)
    assert stale == truth


async def test_nothing_is_told_of_what_is_rolled_back(loop_set: None) -> None:
    tailnet, _owner, node = await database_sync_to_async(_prepare)()
    before = await database_sync_to_async(version)(tailnet)

    def fail() -> None:
        with transaction.atomic():
            lifecycle.approve_node(node=node, by=ME)
            transaction.set_rollback(True)

    hub = await listen(f"tailnet.{tailnet.pk}")
    await database_sync_to_async(fail)()
    await database_sync_to_async(lifecycle.rename_node)(node=node, name="told", by=ME)
    assert (await hub())["version"] == before + 1
    assert await database_sync_to_async(version)(tailnet) == before + 1


async def test_volatile_reports_are_no_durable_change() -> None:
    tailnet, _, node = await database_sync_to_async(_prepare)()
    before = await database_sync_to_async(version)(tailnet)
    report = Volatile(
        node_id=node.pk,
        disco_key="discokey:" + "1" * 64,
        endpoints=("192.0.2.1:41641",),
        home_derp=900,
        hostinfo={"Hostname": "box", "RoutableIPs": ["10.0.0.0/8"], "NetInfo": {"PreferredDERP": 901}},
    )
    after = await database_sync_to_async(volatile.update_node_state)(tailnet=tailnet, report=report)
    assert after is not None
    assert (after.endpoints, after.home_derp, after.disco_key) == (["192.0.2.1:41641"], 900, report.disco_key)
    assert await database_sync_to_async(version)(tailnet) == before


def test_a_change_belongs_inside_its_transaction() -> None:
    tailnet, _ = people.tailnet()
    with pytest.raises(transaction.TransactionManagementError):
        record_change(tailnet, [ChangedRow("node", 1)])


async def test_a_very_large_change_names_no_rows(loop_set: None) -> None:
    tailnet, _ = await database_sync_to_async(people.tailnet)()
    hub = await listen(f"tailnet.{tailnet.pk}")

    def much() -> None:
        with write(tailnet) as change:
            change.upsert("node", *range(1, MAX_ROWS + 2))

    await database_sync_to_async(much)()
    assert (await hub())["rows"] == [{"model": "tailnet", "id": tailnet.pk, "op": "upsert"}]
