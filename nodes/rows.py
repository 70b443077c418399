"""Devices and keys as pages show them: every word and icon decided here, so that templates only print."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.models import Membership
from nodes.access import NodeAction, may
from nodes.hostinfo import field
from nodes.models import Node, PreAuthKey, Presence
from nodes.names import fqdn
from nodes.offers import Offers, offers_of
from nodes.pathwords import Paths
from nodes.selectors import is_online
from nodes.state import NodeState

Word = str | Promise
EXPIRES_SOON = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Shown:
    """A state as a page shows it: never by colour alone."""

    key: str
    icon: str
    word: Word


ONLINE = Shown("online", "circle-check-filled", _("Online"))
OFFLINE = Shown("offline", "circle-off", _("Offline"))
LIFE: dict[NodeState, Shown] = {
    NodeState.PENDING: Shown("pending", "hourglass", _("Needs approval")),
    NodeState.EXPIRED: Shown("expired", "alert-triangle", _("Key expired")),
    NodeState.LOGGED_OUT: Shown("logged-out", "logout", _("Signed out")),
}
OS_NAMES: dict[str, tuple[str, str]] = {
    "linux": ("Linux", "terminal-2"),
    "windows": ("Windows", "brand-windows"),
    "macos": ("macOS", "brand-apple"),
    "ios": ("iOS", "device-mobile"),
    "tvos": ("tvOS", "brand-apple"),
    "android": ("Android", "brand-android"),
    "freebsd": ("FreeBSD", "server"),
    "js": ("Browser", "world"),
}
DISTRO_ICONS = {"ubuntu": "brand-ubuntu", "debian": "brand-debian"}


@dataclass(frozen=True, slots=True)
class Permissions:
    """Which buttons a person gets for a device."""

    approve: bool
    rename: bool
    expire: bool
    delete: bool
    set_expiry: bool
    annotate: bool
    tag: bool
    approve_routes: bool

    @property
    def any(self) -> bool:
        return self.rename or self.expire or self.delete


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One device, for a row and for its own page."""

    node: Node
    state: Shown
    online: bool
    pending: bool
    full_name: str
    os_name: str
    os_icon: str
    version: str
    owner: str
    expires: datetime | None
    expires_soon: bool
    last_seen: datetime | None
    may: Permissions
    offers: Offers
    paths: Paths | None  # none = it is away, or nobody tells

    @property
    def dom_id(self) -> str:
        return f"node-{self.node.pk}"

    @property
    def whose(self) -> str:
        return self.owner or ", ".join(self.node.tags)

    @property
    def about(self) -> str:
        """Its system and version, and that it is ephemeral."""
        ephemeral = gettext("ephemeral") if self.node.ephemeral else ""
        return " · ".join(filter(None, (self.os_name or gettext("Unknown system"), self.version, ephemeral)))

    @property
    def is_marked(self) -> bool:
        """Whether more than its state is to be said."""
        return self.expires_soon or self.offers.any or self.node.cloned_at is not None


def shown_state(node: Node, *, online: bool, now: datetime) -> Shown:
    """The state word of a device; a key that has ended counts as expired before the sweep marks it."""
    if node.life in LIFE:
        return LIFE[node.life]
    if not node.key_is_good(now):
        return LIFE[NodeState.EXPIRED]
    return ONLINE if online else OFFLINE


def os_of(node: Node) -> tuple[str, str]:
    """The operating system's name and icon."""
    reported: str = node.reported_os or ""
    distro: str = node.reported_distro or ""
    name, icon = OS_NAMES.get(reported.lower(), (reported, "device-desktop"))
    return name, DISTRO_ICONS.get(distro.lower(), icon)


def last_seen(node: Node, now: datetime) -> datetime | None:
    """When it was connected last; a stream whose worker died counts until its lease ended."""
    try:
        lease = node.presence.expires
    except Presence.DoesNotExist:
        lease = None
    known = [moment for moment in (node.last_seen, lease) if moment is not None and moment <= now]
    return max(known, default=None)


def device_row(
    node: Node, *, membership: Membership, base_domain: str, now: datetime, paths: Paths | None = None
) -> DeviceRow:
    """What pages show of a device to this person; ``paths`` as :func:`nodes.pathwords.paths_of` has them."""
    online = is_online(node, now)
    os_name, os_icon = os_of(node)
    pending = node.life == NodeState.PENDING
    expires = node.expires if node.life in (NodeState.ACTIVE, NodeState.PENDING) else None
    return DeviceRow(
        node=node,
        state=shown_state(node, online=online, now=now),
        online=online,
        pending=pending,
        full_name=fqdn(node.name, membership.tailnet.name, base_domain).rstrip("."),
        os_name=os_name,
        os_icon=os_icon,
        version=(node.reported_version or "").partition("-")[0],
        owner=node.user.login_name if node.user is not None else "",
        expires=expires,
        expires_soon=expires is not None and now < expires <= now + EXPIRES_SOON,
        last_seen=last_seen(node, now),
        may=Permissions(
            approve=pending and may(membership, NodeAction.APPROVE, node),
            rename=may(membership, NodeAction.RENAME, node),
            expire=node.life in (NodeState.ACTIVE, NodeState.PENDING)
            and not pending
            and may(membership, NodeAction.EXPIRE, node),
            delete=may(membership, NodeAction.DELETE, node),
            set_expiry=not node.is_tagged and may(membership, NodeAction.SET_EXPIRY, node),
            annotate=may(membership, NodeAction.ANNOTATE, node),
            tag=may(membership, NodeAction.TAG, node),
            approve_routes=may(membership, NodeAction.APPROVE_ROUTES, node),
        ),
        offers=offers_of(node),
        paths=paths if online else None,
    )


@dataclass(frozen=True, slots=True)
class Latency:
    """How far a relay region is from a device."""

    region: str
    milliseconds: float
    home: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Connectivity:
    """What a device has found out about its network; ``None`` = it has not said."""

    udp: bool | None
    ipv6: bool | None
    hard_nat: bool | None
    port_mapping: list[str]
    latencies: list[Latency]


def _tristate(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def connectivity(node: Node) -> Connectivity:
    """The NetInfo that a device reported last."""
    net = field(node.hostinfo, "NetInfo")
    net = net if isinstance(net, dict) else {}
    reported = field(net, "DERPLatency")
    best: dict[str, float] = {}
    for key, seconds in (reported if isinstance(reported, dict) else {}).items():
        if isinstance(seconds, int | float):
            region = str(key).partition("-")[0][:20]
            best[region] = min(float(seconds), best.get(region, float(seconds)))
    return Connectivity(
        udp=_tristate(field(net, "WorkingUDP")),
        ipv6=_tristate(field(net, "WorkingIPv6")),
        hard_nat=_tristate(field(net, "MappingVariesByDestIP")),
        port_mapping=[name for name in ("UPnP", "PMP", "PCP") if field(net, name) is True],
        latencies=[
            Latency(region, round(seconds * 1000, 1), region == str(node.home_derp))
            for region, seconds in sorted(best.items(), key=lambda item: item[1])
        ],
    )


KEY_STATES = {
    "active": Shown("active", "circle-check-filled", _("Active")),
    "used": Shown("used", "check", _("Used up")),
    "revoked": Shown("revoked", "ban", _("Revoked")),
    "expired": Shown("offline", "calendar-x", _("Expired")),
}


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One auth key, for its row."""

    key: PreAuthKey
    state: Shown
    may_revoke: bool


def key_row(key: PreAuthKey, *, may_revoke: bool, now: datetime) -> KeyRow:
    """What the list shows of a key."""
    if key.revoked_at is not None:
        word = "revoked"
    elif key.expires <= now:
        word = "expired"
    elif key.uses and not key.reusable:
        word = "used"
    else:
        word = "active"
    return KeyRow(key, KEY_STATES[word], may_revoke and word == "active")
