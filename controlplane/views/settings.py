"""The settings page: one card for each kind of setting, and the way to another name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.describe import describe_contact
from accounts.errors import ApplicationError, NotFound
from accounts.models import Contact, Membership, Tailnet
from accounts.models.tailnets import DNS_LABEL, MAX_KEY_DURATION_DAYS, MAX_ROTATION_DAYS
from accounts.pages import (
    UNPROCESSABLE,
    actor_of,
    error_text,
    go_to,
    is_htmx,
    member_with,
    panel_view,
    say,
    sheet,
)
from accounts.roles import Capability, can
from accounts.selectors import contacts, owner
from accounts.services.tailnets import NameTaken, update_settings
from accounts.words import CONTACTS
from controlplane.services import mails
from controlplane.services.renaming import rename_tailnet

SECTION = "settings"
PAGE = "/settings"


# --- the cards -------------------------------------------------------------------------------------------


class GeneralForm(forms.Form):
    display_name = forms.CharField(required=False, max_length=200, strip=True)

    @staticmethod
    def values(tailnet: Tailnet) -> dict[str, Any]:
        return {"display_name": tailnet.display_name}

    def changes(self) -> dict[str, Any]:
        return {"display_name": self.cleaned_data["display_name"]}


HALF, NEVER, DAYS = "half", "never", "days"


class KeysForm(forms.Form):
    """How long a sign-in lasts, and how often Trenza's clients change their keys."""

    key_duration_days = forms.IntegerField(min_value=1, max_value=MAX_KEY_DURATION_DAYS)
    rotation = forms.ChoiceField(choices=[(one, one) for one in (HALF, DAYS, NEVER)])
    rotation_days = forms.IntegerField(required=False, min_value=1, max_value=MAX_ROTATION_DAYS)

    @staticmethod
    def values(tailnet: Tailnet) -> dict[str, Any]:
        days = tailnet.rotation_days
        return {
            "key_duration_days": tailnet.key_duration_days,
            "rotation": HALF if days is None else DAYS if days else NEVER,
            "rotation_days": days or tailnet.rotates_after_days or None,
        }

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        if cleaned.get("rotation") == DAYS and not cleaned.get("rotation_days") and not self.errors:
            self.add_error("rotation_days", _("Say after how many days."))
        return cleaned

    def changes(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        rotation = {HALF: None, NEVER: 0}.get(cleaned["rotation"], cleaned["rotation_days"])
        return {"key_duration_days": cleaned["key_duration_days"], "rotation_days": rotation}


def _nothing(_membership: Membership) -> dict[str, Any]:
    return {}


def _mail(_membership: Membership) -> dict[str, Any]:
    off = mails.notices_off()
    return {
        "mail_is_set_up": settings.MAIL_IS_SET_UP,
        "mail_notices": [
            {"name": notice.value, "title": title, "hint": hint, "on": notice.value not in off}
            for notice, (title, hint) in mails.WORDS.items()
        ],
        "undelivered": mails.undelivered(),
    }


def _contacts(_membership: Membership) -> dict[str, Any]:
    rows, person = contacts(), owner()
    address = person.email if person is not None else ""
    described = ((kind, describe_contact(rows.get(kind), address)) for kind in Contact.Kind)
    return {"contacts": [{"kind": kind.value, "words": CONTACTS[kind], **one} for kind, one in described]}


class Card(NamedTuple):
    """One card of the page: its template, and what that needs beside the tailnet."""

    template: str
    context: Callable[[Membership], dict[str, Any]] = _nothing


# In their order on the page, the two columns of a wide screen each from top to bottom.
LEFT: tuple[Card, ...] = (
    Card("controlplane/settings/_general.html"),
    Card("controlplane/settings/_joining.html"),
    Card("controlplane/settings/_flows.html"),
    Card("controlplane/settings/_contacts.html", _contacts),
)
RIGHT: tuple[Card, ...] = (
    Card("controlplane/settings/_keys.html"),
    Card("controlplane/settings/_mail.html", _mail),
    Card("controlplane/settings/_webhooks.html"),
)
BELOW: tuple[Card, ...] = (Card("controlplane/settings/_danger.html"),)
FORMS: dict[str, type[GeneralForm | KeysForm]] = {"general": GeneralForm, "keys": KeysForm}
SAVED = {
    "general": gettext_lazy("The name is saved."),
    "keys": gettext_lazy("Saved. It holds for the next sign-in of each device."),
}


class Switch(NamedTuple):
    """A setting that is on or off: its name in the model, and what is said when it has changed."""

    field: str
    card: str
    on: Any
    off: Any


SWITCHES = {
    "device-approval": Switch(
        "device_approval",
        "joining",
        gettext_lazy("New devices wait for approval."),
        gettext_lazy("New devices come in at once."),
    ),
    "users-approval": Switch(
        "users_approval",
        "joining",
        gettext_lazy("New people wait for approval."),
        gettext_lazy("New people come in at once."),
    ),
    "auto-renew": Switch(
        "auto_renew",
        "keys",
        gettext_lazy("Devices in use stay signed in."),
        gettext_lazy("Devices sign in again when their time is over."),
    ),
    "flow-logging": Switch(
        "flow_logging",
        "flows",
        gettext_lazy("Network flows are logged."),
        gettext_lazy("Network flows are not logged any more."),
    ),
}


def _context(membership: Membership, **changed_forms: forms.Form) -> dict[str, Any]:
    """What every card needs; ``changed_forms`` are those that were sent and refused."""
    tailnet = membership.tailnet
    context: dict[str, Any] = {
        "section": SECTION,
        "settings": tailnet,
        "may_change": can(membership, Capability.MANAGE_SETTINGS),
        "owns": can(membership, Capability.OWN_TAILNET),
        "domain_command": f"python manage.py tailnetsettings {tailnet.name} google_domain=example.com",
        "left": [card.template for card in LEFT],
        "right": [card.template for card in RIGHT],
        "below": [card.template for card in BELOW],
    }
    for name, form in FORMS.items():
        context[f"{name}_form"] = changed_forms.get(name) or form(form.values(tailnet))
    for card in (*LEFT, *RIGHT, *BELOW):
        context |= card.context(membership)
    return context


@never_cache
@require_safe
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """The settings as they are; those who may not change them see no buttons."""
    membership = member_with(request, Capability.SEE_ALL)
    return render(request, "controlplane/settings/page.html", _context(membership))


@never_cache
@require_safe
@panel_view
def card(request: HttpRequest, name: str) -> HttpResponse:
    """One card, fetched again after a change."""
    membership = member_with(request, Capability.SEE_ALL)
    return render(request, _template(name), _context(membership))


def _template(name: str) -> str:
    template = f"controlplane/settings/_{name}.html"
    if template not in {one.template for one in (*LEFT, *RIGHT, *BELOW)}:
        raise NotFound("there is no such card")
    return template


def done(request: HttpRequest, membership: Membership, name: str, message: str) -> HttpResponse:
    """What has changed stands in its card, and is said; a browser by itself is led to the page."""
    if not is_htmx(request):
        return redirect(PAGE)
    return say(render(request, _template(name), _context(membership)), message)


@never_cache
@require_POST
@panel_view
def save(request: HttpRequest, name: str) -> HttpResponse:
    """Save a card's form; what is wrong stands beside the field."""
    membership = member_with(request, Capability.MANAGE_SETTINGS)
    if name not in FORMS:
        raise NotFound("there is no such form")
    form = FORMS[name](request.POST)
    if form.is_valid():
        membership.tailnet = update_settings(
            tailnet=membership.tailnet, by=actor_of(request), **form.changes()
        )
        return done(request, membership, name, str(SAVED[name]))
    template = _template(name) if is_htmx(request) else "controlplane/settings/page.html"
    return render(request, template, _context(membership, **{name: form}), status=UNPROCESSABLE)


@never_cache
@require_POST
@panel_view
def switch(request: HttpRequest, name: str) -> HttpResponse:
    """Switch a setting on or off."""
    membership, on = member_with(request, Capability.MANAGE_SETTINGS), request.POST.get("on") == "1"
    if name in [notice.value for notice in mails.Notice]:
        mails.switch_notice(
            tailnet=membership.tailnet, notice=mails.Notice(name), on=on, by=actor_of(request)
        )
        return done(
            request, membership, "mail", _("Such mails are sent.") if on else _("No such mail is sent.")
        )
    if name not in SWITCHES:
        raise NotFound("there is no such setting")
    chosen = SWITCHES[name]
    membership.tailnet = update_settings(
        tailnet=membership.tailnet, by=actor_of(request), **{chosen.field: on}
    )
    return done(request, membership, chosen.card, str(chosen.on if on else chosen.off))


# --- the name --------------------------------------------------------------------------------------------


class NameForm(forms.Form):
    name = forms.RegexField(
        rf"^{DNS_LABEL}$",
        max_length=63,
        error_messages={
            "invalid": gettext_lazy("Use 1 to 63 of a-z, 0-9 and hyphens; no hyphen at either end.")
        },
    )


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def rename(request: HttpRequest) -> HttpResponse:
    """Give the tailnet another name; GET says what that changes."""
    membership = member_with(request, Capability.MANAGE_SETTINGS)
    tailnet = membership.tailnet
    if request.method == "GET":
        form = NameForm({"name": tailnet.name})
        return sheet(request, "controlplane/settings/rename.html", {"section": SECTION, "form": form})
    form = NameForm({"name": request.POST.get("name", "").strip().lower()})
    if form.is_valid():
        try:
            rename_tailnet(tailnet=tailnet, name=form.cleaned_data["name"], by=actor_of(request))
            return go_to(request, PAGE)
        except NameTaken:
            form.add_error("name", _("Another tailnet has this name."))
        except ApplicationError as error:
            form.add_error("name", error_text(error))
    context = {"section": SECTION, "form": form}
    return sheet(request, "controlplane/settings/rename.html", context, status=UNPROCESSABLE)
