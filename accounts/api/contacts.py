"""Whom to write to about a tailnet."""

from __future__ import annotations

from typing import Any

from accounts.api.fields import Email, beyond_the_schema
from accounts.api.values import Closed, Flag, Text
from accounts.api.views import ApiView, operation
from accounts.describe import describe_contact
from accounts.errors import NotFound
from accounts.models import Contact
from accounts.selectors import contacts, owner
from accounts.services.contacts import send_verification, set_contact


class ContactDetails(Closed):
    """One contact."""

    email = Text(help_text="Where to write.")
    fallbackEmail = Text(required=False, help_text="Where one writes until the address is verified.")
    needsVerification = Flag(help_text="Whether nobody has opened the link yet that is mailed there.")


class Contacts(Closed):
    """The contacts of a tailnet; its owner is each of them until another one is set."""

    account = ContactDetails(help_text="For changes of the tailnet.")
    support = ContactDetails(help_text="For what is set up wrongly.")
    security = ContactDetails(help_text="For security matters.")


class ContactChange(Closed):
    """Another address."""

    email = Email(required=False, help_text="Where to write; left out, it stays as it is.")


def _kind(name: str) -> Contact.Kind:
    if name not in Contact.Kind.values:
        raise NotFound(f"there is no such contact: the contacts are {', '.join(Contact.Kind.values)}")
    return Contact.Kind(name)


class ContactsView(ApiView):
    """``/tailnet/{tailnet}/contacts``"""

    @operation("getContacts", about="Get contacts", scope="account_settings:read", answer=Contacts)
    def get(self) -> dict[str, Any]:
        rows, person = contacts(), owner()
        address = person.email if person is not None else ""
        return {kind: describe_contact(rows.get(kind), address) for kind in Contact.Kind.values}


class ContactView(ApiView):
    """``/tailnet/{tailnet}/contacts/{kind}``"""

    @operation(
        "updateContact",
        about="Change a contact",
        scope="account_settings",
        body=ContactChange,
        example={"email": "security@example.com"},
    )
    def patch(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """The new address is mailed a link, and counts once somebody has opened it."""
        wanted = _kind(kind)
        if "email" in body:
            with beyond_the_schema():
                set_contact(
                    tailnet=self.caller.tailnet, kind=wanted, email=body["email"], by=self.caller.actor
                )
        return {}


class VerificationView(ApiView):
    """``/tailnet/{tailnet}/contacts/{kind}/resend-verification-email``"""

    @operation("resendContactVerificationEmail", about="Verify a contact again", scope="account_settings")
    def post(self, kind: str) -> dict[str, Any]:
        """Mails another link to an address that is not verified yet. The server must have a mail server."""
        send_verification(tailnet=self.caller.tailnet, kind=_kind(kind), by=self.caller.actor)
        return {}
