"""What a person's devices reach: of the devices that rules let them reach, those that can be reached now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet

from accounts.models import Membership
from nodes.models import Node
from nodes.names import fqdn
from nodes.rows import Shown, os_of, shown_state
from nodes.selectors import is_online, listed, nodes
from nodes.state import NodeState

MAX_SEARCH = 100
MAX_NAMED = 50  # networks and exit nodes that are named


def _connects(prefix: str, now: datetime) -> Q:
    """Devices (of rows that lead to them by ``prefix``) that others are shown: approved, with a good key.

    As ``controlplane.netmap.visibility`` decides on snapshots.
    """
    active = Membership.objects.filter(status=Membership.Status.ACTIVE, user__is_active=True)
    tagged = Q(**{f"{prefix}user__isnull": True})
    lasting = Q(**{f"{prefix}key_expiry_disabled": True}) | Q(**{f"{prefix}key_expiry__isnull": True})
    good = lasting | Q(**{f"{prefix}key_expiry__gt": now})
    owned = Q(**{f"{prefix}user__in": active.values("user")}) & good
    return (
        Q(**{f"{prefix}state": NodeState.ACTIVE.value}) & (tagged | owned) & ~Q(**{f"{prefix}disco_key": ""})
    )


def reachable(now: datetime, search: str = "", *, among: Collection[int] | None = None) -> QuerySet[Node]:
    """The devices that others reach, by name; ``search`` narrows them by name, owner or address.

    ``among``: only these devices, by id.
    """
    found = listed(nodes()).prefetch_related(None).filter(_connects("", now))
    if among is not None:
        found = found.filter(pk__in=among)
    if search:
        found = found.filter(
            Q(name__icontains=search)
            | Q(user__email__icontains=search)
            | Q(ipv4__startswith=search)
            | Q(ipv6__startswith=search.lower())
        )
    return found.order_by("name", "pk")


def names_of(now: datetime, ids: Collection[int]) -> list[str]:
    """The names of those of these devices that can be reached, at most :data:`MAX_NAMED`."""
    found = Node.objects.filter(_connects("", now), pk__in=ids)
    return list(found.order_by("name").values_list("name", flat=True)[:MAX_NAMED])


def reaches_anything(membership: Membership, now: datetime) -> bool:
    """Whether the person has a device by which to reach others."""
    return Node.objects.filter(_connects("", now), user_id=membership.user_id).exists()


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One device that can be reached, as its colleagues may see it: what their clients show them, too."""

    name: str
    full_name: str
    ipv4: str
    ipv6: str
    owner: str
    tags: list[str]
    os_name: str
    os_icon: str
    state: Shown
    own: bool
    dom_id: str
    ports: tuple[str, ...] = ()  # what rules let the person use there, in words


def peer(
    node: Node, *, membership: Membership, base_domain: str, now: datetime, ports: tuple[str, ...] = ()
) -> Peer:
    """What is shown of a device that can be reached."""
    os_name, os_icon = os_of(node)
    return Peer(
        name=node.name,
        full_name=fqdn(node.name, membership.tailnet.name, base_domain).rstrip("."),
        ipv4=node.ipv4,
        ipv6=node.ipv6,
        owner=node.user.login_name if node.user is not None else "",
        tags=node.tags,
        os_name=os_name,
        os_icon=os_icon,
        state=shown_state(node, online=is_online(node, now), now=now),
        own=node.user_id is not None and node.user_id == membership.user_id,
        dom_id=f"peer-{node.pk}",
        ports=ports,
    )
