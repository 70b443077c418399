"""What the engine knows of one tailnet: immutable plain data, made by :mod:`controlplane.snapshots`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from controlplane.netmap.policy.model import Policy
from wire.derpmap import DERPMap

TAGGED_USER_ID = 2_147_455_555  # the pseudo person that owns tagged nodes; no real id comes near
TAGGED_LOGIN = "tagged-devices"
TAGGED_NAME = "Tagged Devices"
EXIT_ROUTES = ("0.0.0.0/0", "::/0")


class Standing(StrEnum):
    """A node's state as far as netmaps care."""

    PENDING = "pending"
    ACTIVE = "active"
    EXPIRED = "expired"
    LOGGED_OUT = "logged-out"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSnapshot:
    """One node: durable facts of its row, and volatile ones merged over them.

    ``name`` is the FQDN with its trailing dot, keys are in their text form ("" = none), ``key_expiry``
    ``None`` means never, ``routes`` are the approved prefixes (``approved`` says since when they are), and
    ``primary_routes`` those that it serves now: the engine's own decision, whatever is put in.
    ``cloned``: two machines use its keys. ``renews_within``: a key with fewer seconds left than that starts a
    fresh period when it is rotated (0 = it does not).
    ``online_since`` is when its present time online began, ``None`` while it is offline or that is not known.
    ``has_ipv4``: whether maps show its IPv4 address; the engine's own decision, too, by the policy.
    ``attributes`` are what postures judge: ``node:os`` … as the node says, ``custom:…`` as the API was told.
    """

    id: int
    stable_id: str
    name: str
    user_id: int
    machine_key: str
    node_key: str
    ipv4: str
    ipv6: str
    standing: Standing
    created: datetime
    tags: tuple[str, ...] = ()
    key_expiry: datetime | None = None
    routes: tuple[str, ...] = ()
    approved: Mapping[str, datetime] = field(default_factory=dict)
    primary_routes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    cloned: bool = False
    renews_within: int = 0
    has_ipv4: bool = True
    # volatile
    disco_key: str = ""
    endpoints: tuple[str, ...] = ()
    home_derp: int = 0
    hostinfo: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    capability_version: int = 0
    online: bool = False
    online_since: datetime | None = None
    last_seen: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSnapshot:
    """Somebody whose nodes others see. ``picture_url`` is absolute or empty.

    ``role`` is the one in this tailnet, ``groups`` are those that the identity provider says (``group:…``).
    """

    id: int
    login_name: str
    display_name: str
    picture_url: str = ""
    role: str = "member"
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DNSSnapshot:
    """A tailnet's DNS settings. Resolvers are ``{"Addr": …}`` objects as they go on the wire."""

    magic_dns: bool = True
    override_local: bool = False
    resolvers: tuple[Mapping[str, Any], ...] = ()
    split: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    search_paths: tuple[str, ...] = ()
    extra_records: tuple[Mapping[str, Any], ...] = ()


def _default_policy() -> Policy:
    from controlplane.netmap.policy.default import default_policy  # it knows snapshots

    return default_policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class TailnetSnapshot:
    """One tailnet at one ``netmap_version``. ``suffix`` is its MagicDNS domain without dots around it.

    ``logs_flows``: whether clients are to tell who talks to whom. ``policy`` says who may reach what.
    """

    id: int
    name: str
    suffix: str
    version: int
    logs_flows: bool = False
    nodes: Mapping[int, NodeSnapshot] = field(default_factory=dict)
    users: Mapping[int, UserSnapshot] = field(default_factory=dict)
    dns: DNSSnapshot = field(default_factory=DNSSnapshot)
    derp_map: DERPMap = field(default_factory=DERPMap)
    policy: Policy = field(default_factory=_default_policy)
