"""The words that pages and mails use for roles, and the log for what of a thing changed."""

from __future__ import annotations

from typing import NamedTuple

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import Contact, Membership
from accounts.roles import Role, outranks


class Words(NamedTuple):
    """What something is called, and what it is for."""

    word: Promise
    hint: Promise


ROLES: dict[Role, Words] = {
    Role.OWNER: Words(_("Owner"), _("Everything, and alone: transfers and deletes the tailnet.")),
    Role.ADMIN: Words(_("Admin"), _("Everything but transferring or deleting the tailnet.")),
    Role.IT_ADMIN: Words(_("IT admin"), _("Devices, people and settings; not routes, DNS and rules.")),
    Role.NETWORK_ADMIN: Words(
        _("Network admin"), _("Routes, exit nodes, DNS, rules and relays; not devices and people.")
    ),
    Role.AUDITOR: Words(_("Auditor"), _("Sees everything, changes nothing.")),
    Role.BILLING_ADMIN: Words(_("Billing admin"), _("Sees no device and changes nothing.")),
    Role.MEMBER: Words(_("Member"), _("Their own devices and keys.")),
}


# What each contact of a tailnet is for.
CONTACTS: dict[Contact.Kind, Words] = {
    Contact.Kind.ACCOUNT: Words(_("Account"), _("For changes of the tailnet.")),
    Contact.Kind.SUPPORT: Words(_("Support"), _("For what is set up wrongly.")),
    Contact.Kind.SECURITY: Words(_("Security"), _("For security matters.")),
}


# What events name as ``target_property``, in the public API's spelling or our own.
PROPERTIES: dict[str, Promise] = {
    "ACL_TAGS": _("tags"),
    "ALLOWED_IPS": _("approved routes"),
    "AUTHENTICATOR_APP": _("authenticator app"),
    "CONTACT_ACCOUNT": _("address for news of the tailnet"),
    "CONTACT_SECURITY": _("address for security matters"),
    "CONTACT_SUPPORT": _("address for faults"),
    "DECLINED_ROUTES": _("declined routes"),
    "DNS": _("DNS settings"),
    "DNS_NAMESERVERS": _("nameservers"),
    "DNS_OVERRIDE": _("whether these nameservers replace each device's own"),
    "DNS_RECORDS": _("DNS records"),
    "DNS_SEARCH_PATHS": _("search domains"),
    "ENABLED": _("whether it is on"),
    "EXIT_NODE": _("exit node"),
    "GROUPS": _("groups"),
    "IDENTITY": _("account to sign in with"),
    "IP_ADDRESS": _("IPv4 address"),
    "KEY_EXPIRY": _("key expiry"),
    "KEY_EXPIRY_TIME": _("end of its key"),
    "MACHINE_NAME": _("name"),
    "MAGIC_DNS": _("MagicDNS"),
    "MAIL_DEVICES": _("e-mails about devices"),
    "MAIL_KEYS": _("e-mails about keys"),
    "MAIL_OFFERS": _("e-mails about routes and exit nodes"),
    "MAIL_PEOPLE": _("e-mails about people"),
    "NAME": _("name"),
    "NODE_KEY": _("node key"),
    "NOTES": _("notes"),
    "OFFERED_ROUTES": _("offered routes"),
    "PASSKEY": _("passkey"),
    "POSTURE_ATTRIBUTES": _("posture attributes"),
    "PROFILE": _("profile"),
    "PROVIDER": _("kind of receiver"),
    "RECOVERY_CODES": _("recovery codes"),
    "ROLE": _("role"),
    "SECRET": _("secret"),
    "SETTINGS": _("settings"),
    "SPLIT_DNS": _("split DNS"),
    "SSH_SESSION": _("SSH session"),
    "STATUS": _("state"),
    "SUBSCRIPTIONS": _("events"),
    "TOKEN": _("token"),
    "URL": _("address"),
    "USED_EXIT_NODE": _("exit node in use"),
}


def property_word(name: str) -> str:
    """What of a thing changed, in the reader's language; what has no word of its own as it is spelled."""
    return str(PROPERTIES[name]) if name in PROPERTIES else name.replace("_", " ").lower()


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
