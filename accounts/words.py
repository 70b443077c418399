"""The words that pages and mails use for roles."""

from __future__ import annotations

from typing import NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import Membership
from accounts.roles import Role, outranks


class RoleWords(NamedTuple):
    """What a role is called, and what it is for."""

    word: Promise
    hint: Promise


ROLES: dict[Role, RoleWords] = {
    Role.OWNER: RoleWords(_("Owner"), _("Everything, and alone: transfers and deletes the tailnet.")),
    Role.ADMIN: RoleWords(_("Admin"), _("Everything but transferring or deleting the tailnet.")),
    Role.IT_ADMIN: RoleWords(_("IT admin"), _("Devices, people and settings; not routes, DNS and rules.")),
    Role.NETWORK_ADMIN: RoleWords(
        _("Network admin"), _("Routes, exit nodes, DNS, rules and relays; not devices and people.")
    ),
    Role.AUDITOR: RoleWords(_("Auditor"), _("Sees everything, changes nothing.")),
    Role.BILLING_ADMIN: RoleWords(_("Billing admin"), _("Sees no device and changes nothing.")),
    Role.MEMBER: RoleWords(_("Member"), _("Their own devices and keys.")),
}


class RoleChoice(NamedTuple):
    """A role to choose, for a form."""

    value: str
    word: Promise
    hint: Promise


def role_word(role: str) -> str:
    """What a role is called, in the reader's language."""
    return str(ROLES[Role(role)].word)


def roles_to_give(actor: Membership) -> list[RoleChoice]:
    """The roles that a person may give, the humblest first."""
    return [RoleChoice(role.value, *ROLES[role]) for role in reversed(Role) if outranks(actor, role)]
