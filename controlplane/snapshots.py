"""From rows to the engine's snapshots: the only bridge between the ORM and :mod:`controlplane.netmap`.

A whole tailnet costs a fixed number of queries; a few changed nodes cost a fixed number again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple, ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.models import Membership, Tailnet, User
from accounts.tenancy import find_by_credential, scope
from controlplane.env import environment
from controlplane.models import DNSSettings, Relay
from controlplane.netmap.policy.model import Policy
from controlplane.netmap.snapshot import (
    DNSSnapshot,
    NodeSnapshot,
    Standing,
    TailnetSnapshot,
    UserSnapshot,
)
from controlplane.policies import load_policy
from nodes.models import Node, PostureAttribute, Presence, Route
from nodes.names import fqdn
from nodes.posture import Value, own_attributes
from nodes.selectors import is_online, live_attributes
from nodes.services.rotation import renews_within
from nodes.state import KEY_IS_GOOD
from wire.derpmap import DERPMap, DERPNode, DERPRegion

ADMIN_ROLES = {"owner": ("admin", "owner"), "admin": ("admin",)}


# What :meth:`Node.key_is_good` looks at.
DECIDE_ABOUT_KEYS = ("node_key", "state", "user_id", "key_expiry", "key_expiry_disabled")

# What snapshots have no need of, and costs time to read of thousands of nodes.
NOT_IN_SNAPSHOTS = (
    "approved_at",
    "ephemeral",
    "auth_key",
    "clone_details",
    "hostname",
    "name_is_chosen",
    "last_login",
    "key_rotated_at",
    "rotation_asked_at",
    "reported_os",
    "reported_distro",
    "reported_app",
    "reported_version",
    "reported_exit_node",
    "endpoint_types",
    "exit_node",
    "notes",
    "preapproved_routes",
    "presence__worker",
    "presence__epoch",
)

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """A database function as a coroutine, in any thread of the pool."""
    wrapped: Callable[P, Awaitable[T]] = database_sync_to_async(function, thread_sensitive=False)
    return wrapped


def load_tailnet(tailnet_id: int) -> TailnetSnapshot | None:
    """Everything of one tailnet; ``None`` when it is gone. The version is read first: rows may be newer."""
    tailnet = Tailnet.objects.filter(pk=tailnet_id).first()
    if tailnet is None:
        return None
    with scope(tailnet=tailnet):
        places = _places(Membership.objects.all())
        now = timezone.now()
        beside = _beside(Route.objects.all(), live_attributes(now))
        nodes = {node.pk: _snapshot(node, tailnet, places, beside, now) for node in _rows()}
        users = User.objects.filter(Q(nodes__tailnet=tailnet) | Q(pk__in=list(places))).distinct()
        return TailnetSnapshot(
            id=tailnet.pk,
            name=tailnet.title,
            suffix=f"{tailnet.name}.{environment().base_domain}",
            version=tailnet.netmap_version,
            logs_flows=tailnet.flow_logging,
            policy=load_policy(tailnet),
            nodes=nodes,
            users={user.pk: _user(user, places) for user in users},
            dns=_dns(DNSSettings.objects.filter(tailnet=tailnet).first()),
            derp_map=load_derp_map(tailnet.pk),
        )


def load_part(
    tailnet: Tailnet,
    *,
    node_ids: Collection[int] = (),
    user_ids: Collection[int] = (),
    policy: Policy | None = None,
) -> TailnetSnapshot:
    """A policy (the one in force) with these nodes and people alone, for a question about them.

    Needs the tailnet's scope.
    """
    rows = list(_rows().filter(pk__in=node_ids)) if node_ids else []
    owners = {row.user_id for row in rows if row.user_id is not None}
    users = User.objects.filter(pk__in={*owners, *user_ids})
    places = _places(Membership.objects.filter(user__in=users))
    now = timezone.now()
    beside = _beside_these(rows, now)
    return TailnetSnapshot(
        id=tailnet.pk,
        name=tailnet.title,
        suffix=f"{tailnet.name}.{environment().base_domain}",
        version=tailnet.netmap_version,
        policy=policy or load_policy(tailnet),
        nodes={row.pk: _snapshot(row, tailnet, places, beside, now) for row in rows},
        users={user.pk: _user(user, places) for user in users},
    )


def load_nodes(snapshot: TailnetSnapshot, node_ids: Collection[int], version: int) -> TailnetSnapshot:
    """``snapshot`` with these nodes (and their owners) read again; deleted ones leave it."""
    tailnet = Tailnet.objects.get(pk=snapshot.id)
    with scope(tailnet=tailnet):
        rows = list(_rows().select_related("user").filter(pk__in=node_ids))
        owners = {row.user for row in rows if row.user is not None}
        places = _places(Membership.objects.filter(user__in=owners))
        now = timezone.now()
        beside = _beside_these(rows, now)
    nodes = {key: value for key, value in snapshot.nodes.items() if key not in node_ids}
    nodes |= {row.pk: _snapshot(row, tailnet, places, beside, now) for row in rows}
    users = dict(snapshot.users) | {owner.pk: _user(owner, places) for owner in owners}
    return replace(snapshot, nodes=nodes, users=users, version=version)


class Place(NamedTuple):
    """What an active member is in the tailnet: the role, and the groups that were given here."""

    role: str
    groups: Sequence[str]


class Beside(NamedTuple):
    """What other tables have of nodes, by node: approved routes in order, and attributes by key."""

    routes: Mapping[int, Mapping[str, datetime]]
    attributes: Mapping[int, Mapping[str, Value]]


def _places(memberships: QuerySet[Membership]) -> dict[int, Place]:
    """The places of those who are active members; nobody else's device sees or is seen."""
    rows = _active(memberships).values_list("user_id", "role", "groups")
    return {user_id: Place(role, groups) for user_id, role, groups in rows}


def _active(memberships: QuerySet[Membership]) -> QuerySet[Membership]:
    return memberships.filter(status=Membership.Status.ACTIVE, user__is_active=True)


def _beside(offered: QuerySet[Route], attributes: QuerySet[PostureAttribute]) -> Beside:
    routes: dict[int, dict[str, datetime]] = {}
    for node_id, prefix, since in offered.order_by("prefix").values_list("node_id", "prefix", "approved_at"):
        if since is not None:
            routes.setdefault(node_id, {})[prefix] = since
    found: dict[int, dict[str, Value]] = {}
    for node_id, key, value in attributes.values_list("node_id", "key", "value"):
        found.setdefault(node_id, {})[key] = value
    return Beside(routes, found)


def _beside_these(rows: Sequence[Node], now: datetime) -> Beside:
    ids = [row.pk for row in rows]
    return _beside(Route.objects.filter(node__in=ids), live_attributes(now).filter(node__in=ids))


def _rows() -> QuerySet[Node]:
    return Node.objects.select_related("presence").defer(*NOT_IN_SNAPSHOTS).order_by("pk")


def _snapshot(
    node: Node, tailnet: Tailnet, places: Mapping[int, Place], beside: Beside, now: datetime
) -> NodeSnapshot:
    place = places.get(node.user_id or 0)
    approved = beside.routes.get(node.pk, {})
    online = is_online(node, now)
    return NodeSnapshot(
        id=node.pk,
        stable_id=node.stable_id,
        name=fqdn(node.name, tailnet.name, environment().base_domain),
        user_id=node.user_id or 0,
        machine_key=node.machine_key,
        node_key=node.node_key,
        ipv4=str(node.ipv4),
        ipv6=str(node.ipv6),
        standing=_standing(node, places, now),
        created=node.created,
        tags=tuple(node.tags),
        key_expiry=node.expires,
        routes=tuple(approved),
        approved=approved,
        roles=ADMIN_ROLES.get(place.role, ()) if place is not None else (),
        cloned=node.cloned_at is not None,
        renews_within=renews_within(tailnet, node),
        disco_key=node.disco_key,
        endpoints=tuple(node.endpoints),
        home_derp=node.home_derp,
        hostinfo=node.hostinfo,
        attributes={**own_attributes(node.hostinfo), **beside.attributes.get(node.pk, {})},
        capability_version=node.capability_version,
        online=online,
        online_since=node.presence.connected_at if online else None,
        last_seen=node.last_seen,
    )


def _standing(node: Node, places: Mapping[int, Place], now: datetime) -> Standing:
    """The state as it is now, whatever the expiry sweep has got to.

    The device of somebody who was suspended waits as one that was never approved: restoring brings it back.
    """
    standing = Standing(node.state)
    if standing is Standing.ACTIVE and node.user_id is not None and node.user_id not in places:
        standing = Standing.PENDING
    expires = node.expires
    if standing in (Standing.ACTIVE, Standing.PENDING) and expires is not None and expires <= now:
        return Standing.EXPIRED
    return standing


def _user(user: User, places: Mapping[int, Place]) -> UserSnapshot:
    """Somebody as rules see them; who is no active member has no role and is in no group."""
    place = places.get(user.pk)
    return UserSnapshot(
        id=user.pk,
        login_name=user.login_name,
        display_name=user.name,
        picture_url=user.picture_url,
        role=place.role if place is not None else "",
        groups=tuple(sorted({*place.groups, *user.groups})) if place is not None else (),
    )


def _dns(row: DNSSettings | None) -> DNSSnapshot:
    if row is None:
        return DNSSnapshot()

    def resolver(item: Any) -> dict[str, Any]:
        content: dict[str, Any] = {"Addr": item["address"]}
        return content | ({"UseWithExitNode": True} if item.get("useWithExitNode") else {})

    return DNSSnapshot(
        magic_dns=row.magic_dns,
        override_local=row.override_local_dns,
        resolvers=tuple(map(resolver, row.nameservers)),
        split={domain: tuple(map(resolver, items)) for domain, items in row.split_dns.items()},
        search_paths=tuple(row.search_paths),
        extra_records=tuple(row.extra_records),
    )


def load_derp_map(tailnet_id: int) -> DERPMap:
    """The server-wide relays and those of the tailnet's own that have ever connected, by region."""
    regions: dict[int, DERPRegion] = {}
    own = Q(tailnet=tailnet_id) & ~Q(derp_key="")
    relays = Relay.objects.filter(Q(tailnet=None) | own, enabled=True)
    for relay in relays.order_by("region_id", "node_name"):
        node = DERPNode(
            name=relay.node_name,
            region_id=relay.region_id,
            host_name=relay.host_name,
            cert_name=relay.cert_name,
            ipv4=relay.ipv4,
            ipv6=relay.ipv6,
            stun_port=relay.stun_port,
            derp_port=relay.derp_port,
            can_port80=relay.can_port80,
        )
        region = regions.get(relay.region_id) or DERPRegion(
            region_id=relay.region_id,
            region_code=relay.region_code,
            region_name=relay.region_name,
            latitude=relay.latitude,
            longitude=relay.longitude,
        )
        regions[relay.region_id] = replace(region, nodes=(*region.nodes, node))
    return DERPMap(regions=regions)


def load_versions(tailnet_ids: Collection[int]) -> dict[int, int]:
    """The current ``netmap_version`` of some tailnets, in one query."""
    return dict(Tailnet.objects.filter(pk__in=tailnet_ids).values_list("pk", "netmap_version"))


def ended_presences(tailnet_id: int, node_ids: Collection[int]) -> list[int]:
    """Which of these nodes no worker holds a stream of any more."""
    with scope(tailnet=tailnet_id):
        held = Presence.objects.filter(node_id__in=node_ids, expires__gt=timezone.now())
        return sorted(set(node_ids) - set(held.values_list("node_id", flat=True)))


def load_all_versions() -> dict[int, int]:
    return dict(Tailnet.objects.values_list("pk", "netmap_version"))


class ServedKeys(NamedTuple):
    """The node keys of a tailnet that relays may serve, and until when that is so without a change."""

    version: int
    keys: list[str]
    until: datetime | None


def load_served_keys(tailnet_id: int) -> ServedKeys | None:
    """What relays may serve now of one tailnet; ``None`` when it is gone."""
    version = Tailnet.objects.filter(pk=tailnet_id).values_list("netmap_version", flat=True).first()
    if version is None:
        return None
    with scope(tailnet=tailnet_id):
        served = _served(Node.objects.all())
    ends = [node.expires for node in served if node.expires is not None]
    return ServedKeys(version, [node.node_key for node in served], min(ends, default=None))


def is_served_key(node_key: str) -> bool:
    """Whether relays may serve this key now: whether it is in the list of any tailnet."""
    node = find_by_credential("node_key", node_key)
    if node is None:
        return False
    with scope(tailnet=node.tailnet_id):
        return any(one.node_key == node_key for one in _served(Node.objects.filter(pk=node.pk)))


def _served(nodes: QuerySet[Node]) -> list[Node]:
    """Those of these nodes (of the scope's tailnet) whose keys relays may serve now."""
    now = timezone.now()
    active = Q(user__isnull=True) | Q(
        user__in=list(_active(Membership.objects.all()).values_list("user_id", flat=True))
    )
    rows = nodes.filter(active, state__in=[state.value for state in KEY_IS_GOOD])
    rows = rows.only(*DECIDE_ABOUT_KEYS)  # each change asks, and Hostinfos are dear to read
    return [node for node in rows if node.key_is_good(now)]
