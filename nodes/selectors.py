"""Reading devices and keys. Everything here needs the tailnet's scope open."""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any

from django.db.models import Count, Prefetch, Q, QuerySet

from nodes.hostinfo import EXIT_ROUTES
from nodes.models import Node, PostureAttribute, PreAuthKey, Presence, Route
from nodes.state import NodeState


def nodes() -> QuerySet[Node]:
    """Every device with its owner, tailnet, presence and routes, by name: four queries at most."""
    return (
        Node.objects.select_related("user", "tailnet", "presence")
        .prefetch_related(Prefetch("routes", queryset=Route.objects.order_by("prefix")))
        .order_by("name")
    )


# What a device's state is told by, and what lists show of it: a whole row is as much again, for each of many.
STATED = (
    "name",
    "stable_id",
    "tailnet",
    "user",
    "state",
    "key_expiry",
    "key_expiry_disabled",
    "presence__node",
    "presence__expires",
)
SYSTEM = ("reported_os", "reported_distro")
LISTED = (
    *(*STATED, *SYSTEM),
    "tags",
    "ephemeral",
    "cloned_at",
    "ipv4",
    "ipv6",
    "last_seen",
    "reported_version",
)


def listed(devices: QuerySet[Node]) -> QuerySet[Node]:
    """The same devices with what lists show of them and of their owners."""
    light = devices.select_related(None).select_related("user", "presence")
    return light.only(*LISTED, "user__email", "user__display_name")


def pending_nodes() -> QuerySet[Node]:
    """Devices that wait for approval, oldest first."""
    return nodes().filter(state=NodeState.PENDING.value).order_by("created", "pk")


def _both_defaults(routes: QuerySet[Route]) -> QuerySet[Any, Any]:
    """The ids of devices of which both default routes are among these."""
    default = routes.filter(prefix__in=EXIT_ROUTES).order_by().values("node")
    return default.annotate(n=Count("pk")).filter(n=len(EXIT_ROUTES)).values("node")


def offers_exit_node() -> Q:
    """Devices that offer themselves as exit node, approved or not."""
    return Q(pk__in=_both_defaults(Route.objects.get_queryset()))


def is_exit_node() -> Q:
    """Devices of which both default routes are approved."""
    return Q(pk__in=_both_defaults(Route.objects.filter(approved_at__isnull=False)))


def part_of_exit_node() -> Q:
    """Default routes of devices that offer both of them: one alone is a subnet as any other."""
    return Q(prefix__in=EXIT_ROUTES, node__in=_both_defaults(Route.objects.get_queryset()))


def waiting_routes() -> QuerySet[Route]:
    """Prefixes that nobody has approved or declined, of whichever devices."""
    return Route.objects.filter(approved_at__isnull=True, declined_at__isnull=True)


def offers_wait() -> Q:
    """Approved devices that offer something which nobody has decided about."""
    return Q(state=NodeState.ACTIVE.value, pk__in=waiting_routes().values("node"))


def exit_nodes() -> QuerySet[Node]:
    """Devices that others may use as exit node."""
    return nodes().filter(is_exit_node(), state=NodeState.ACTIVE.value)


def find_node(reference: str) -> Node | None:
    """A device by address, id, nodeId, name (short or full) or host name; the first that fits."""
    reference = reference.strip().rstrip(".")
    tries = [Q(stable_id=reference), Q(name=reference.partition(".")[0].lower()), Q(hostname=reference)]
    if reference.isascii() and reference.isdigit():
        tries.insert(0, Q(pk=int(reference)))
    try:
        address = str(ip_address(reference))
        tries = [Q(ipv4=address) | Q(ipv6=address)]
    except ValueError:
        pass
    for wanted in tries:
        found = nodes().filter(wanted).order_by("pk").first()
        if found is not None:
            return found
    return None


def is_online(node: Node, now: datetime) -> bool:
    """Whether a worker holds a stream of it (its presence is read with :func:`nodes`)."""
    try:
        return node.presence.is_online(now)
    except Presence.DoesNotExist:
        return False


def ends_within(length: timedelta, now: datetime) -> Q:
    """Devices of people whose keys are good now, and end before that time has passed."""
    return Q(
        state=NodeState.ACTIVE.value,
        user__isnull=False,
        key_expiry_disabled=False,
        key_expiry__gt=now,
        key_expiry__lte=now + length,
    )


def unseen_since(moment: datetime, now: datetime) -> Q:
    """Devices that are away and were neither connected, nor signed in, nor added after ``moment``."""
    online = Q(presence__expires__gt=now)
    lately = Q(last_seen__gte=moment) | Q(presence__expires__gte=moment)
    return Q(created__lt=moment, last_login__lt=moment) & ~(online | lately)


def live_attributes(now: datetime) -> QuerySet[PostureAttribute]:
    """Posture attributes that count, by key."""
    live = Q(expires__isnull=True) | Q(expires__gt=now)
    return PostureAttribute.objects.filter(live).order_by("key")


def auth_keys() -> QuerySet[PreAuthKey]:
    """Auth keys, newest first."""
    return PreAuthKey.objects.select_related("user", "created_by").order_by("-created", "-pk")
