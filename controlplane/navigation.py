"""The panel's sections, in the order of the side bar: the one list of its top pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import Membership
from accounts.roles import Capability, can


@dataclass(frozen=True, slots=True)
class Section:
    """One entry. ``needs`` = any of these capabilities shows it; ``badge`` = a template with its number."""

    name: str
    path: str
    icon: str
    word: str | Promise
    needs: frozenset[Capability] = frozenset()
    badge: str = ""


def _any(*capabilities: Capability) -> frozenset[Capability]:
    return frozenset(capabilities)


ALL = _any(Capability.SEE_ALL)

SECTIONS: tuple[Section, ...] = (
    Section("overview", "/", "layout-dashboard", _("Overview"), ALL),
    Section("devices", "/devices", "devices", _("Devices"), ALL),
    Section("approvals", "/approvals", "inbox", _("Approvals"), ALL, "nodes/_badge.html"),
    Section("routes", "/routes", "route", _("Routes & exit nodes"), ALL),
    Section("map", "/map", "topology-star-3", _("Map"), _any(Capability.SEE_ALL, Capability.SEE_OWN_DEVICES)),
    Section("users", "/users", "users", _("Users"), _any(Capability.SEE_ALL)),
    Section("access", "/access", "shield-lock", _("Access controls"), ALL),
    Section("keys", "/keys", "key", _("Keys"), _any(Capability.SEE_ALL, Capability.CREATE_OWN_KEYS)),
    Section("dns", "/dns", "world", _("DNS"), _any(Capability.SEE_ALL)),
    Section("relays", "/relays", "server-2", _("Relays"), _any(Capability.SEE_ALL)),
    Section("logs", "/logs", "history", _("Logs"), ALL),
    Section("settings", "/settings", "settings", _("Settings"), _any(Capability.SEE_ALL)),
    Section("my-devices", "/my-devices", "device-laptop", _("My devices")),
    Section("api", "/api", "code", _("API"), _any(Capability.SEE_ALL, Capability.CREATE_OWN_KEYS)),
)


def sections_for(membership: Membership | None) -> Sequence[Section]:
    """What a person sees in the side bar; nothing without an active membership."""
    if membership is None or not membership.is_active:
        return ()
    return [one for one in SECTIONS if not one.needs or any(can(membership, need) for need in one.needs)]
