"""A tailnet's contacts, from the card on the settings page: set, and asked once more to be verified."""

from __future__ import annotations

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from accounts.errors import ApplicationError, NotFound
from accounts.models import Contact
from accounts.pages import UNPROCESSABLE, actor_of, error_text, member_with, panel_view, sheet
from accounts.roles import Capability
from accounts.selectors import contacts, owner
from accounts.services.contacts import send_verification, set_contact
from accounts.services.people import MAX_EMAIL
from accounts.words import CONTACTS
from controlplane.views.settings import SECTION, done

CARD = "contacts"


class ContactForm(forms.Form):
    email = forms.EmailField(max_length=MAX_EMAIL)


def _kind(name: str) -> Contact.Kind:
    if name not in Contact.Kind.values:
        raise NotFound("there is no such contact")
    return Contact.Kind(name)


def _said(kind: Contact.Kind) -> str:
    """What is said when an address was set, or mailed again."""
    row = contacts().get(kind)
    if row is None or not row.needs_verification:
        return _("The contact is saved.")
    if row.token_hash is None:
        return _("Saved. It counts once it is confirmed, and the server has no mail server to ask by.")
    return _("A link to confirm it is on its way to %(email)s.") % {"email": row.email}


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def change(request: HttpRequest, kind: str) -> HttpResponse:
    """Set another address; GET shows the form."""
    membership, wanted = member_with(request, Capability.MANAGE_SETTINGS), _kind(kind)
    if request.method == "GET":
        row = contacts().get(wanted)
        return _form(request, wanted, ContactForm(initial={"email": row.email if row else ""}))
    form = ContactForm(request.POST)
    if form.is_valid():
        try:
            email = form.cleaned_data["email"]
            set_contact(tailnet=membership.tailnet, kind=wanted, email=email, by=actor_of(request))
            return done(request, membership, CARD, _said(wanted))
        except ApplicationError as error:
            form.add_error("email", error_text(error))
    return _form(request, wanted, form, UNPROCESSABLE)


def _form(request: HttpRequest, kind: Contact.Kind, form: ContactForm, status: int = 200) -> HttpResponse:
    context = {
        "section": SECTION,
        "form": form,
        "kind": kind.value,
        "words": CONTACTS[kind],
        "owner": owner(),
    }
    return sheet(request, "controlplane/settings/contact.html", context, status=status)


@never_cache
@require_POST
@panel_view
def resend(request: HttpRequest, kind: str) -> HttpResponse:
    """Mail another link to an address that nobody has confirmed yet."""
    membership, wanted = member_with(request, Capability.MANAGE_SETTINGS), _kind(kind)
    send_verification(tailnet=membership.tailnet, kind=wanted, by=actor_of(request))
    return done(request, membership, CARD, _said(wanted))
