"""The DNS page: MagicDNS, nameservers, search domains, records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.access import require
from accounts.errors import ApplicationError, Forbidden, Invalid, NotFound
from accounts.models import Membership
from accounts.pages import UNPROCESSABLE, actor_of, error_text, is_htmx, membership_of, panel_view, say, sheet
from accounts.roles import Capability, can
from controlplane.services import dns

SECTION = "dns"
PAGE = "/dns"


class Suggestion(NamedTuple):
    """A public resolver whose operator promises something; ``addresses`` are its own."""

    name: str
    addresses: tuple[str, ...]


SUGGESTIONS = (
    Suggestion("Quad9", ("9.9.9.9", "2620:fe::fe")),
    Suggestion("Cloudflare", ("1.1.1.1", "2606:4700:4700::1111")),
    Suggestion("Google", ("8.8.8.8", "2001:4860:4860::8888")),
    Suggestion("AdGuard", ("94.140.14.14", "2a10:50c0::ad1:ff")),
)


# --- who may -----------------------------------------------------------------------------------------------


def _membership(request: HttpRequest, capability: Capability) -> Membership:
    """Missing and forbidden look alike."""
    try:
        return require(membership_of(request), capability)
    except Forbidden as error:
        raise NotFound(str(error)) from error


# --- the page ----------------------------------------------------------------------------------------------


def _context(membership: Membership) -> dict[str, Any]:
    row = dns.dns_settings(membership.tailnet)
    return {
        "dns": row,
        "suffix": dns.suffix_of(membership.tailnet),
        "split": sorted(row.split_dns.items()),
        "may_change": can(membership, Capability.MANAGE_NETWORK),
        "section": SECTION,
    }


@never_cache
@require_safe
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """The settings as they are; those who may not change them see no buttons."""
    membership = _membership(request, Capability.SEE_ALL)
    template = "controlplane/_dns.html" if is_htmx(request) else "controlplane/dns.html"
    return render(request, template, _context(membership))


def _done(request: HttpRequest, membership: Membership, message: str) -> HttpResponse:
    """The settings anew, and what was done."""
    if not is_htmx(request):
        return redirect(PAGE)
    return say(render(request, "controlplane/_dns.html", _context(membership)), message)


# --- forms: what is wrong is said beside the field, in the reader's language --------------------------------


def _checked(check: Callable[[str], str], wrong: Promise) -> Callable[[str], str]:
    def clean(text: str) -> str:
        try:
            return check(text)
        except Invalid as error:
            raise forms.ValidationError(str(wrong)) from error

    return clean


ADDRESS = _checked(
    dns.nameserver_address,
    gettext_lazy("Give an address that every device can reach, such as 9.9.9.9 or 2620:fe::fe, or https://…"),
)
DOMAIN = _checked(dns.domain_name, gettext_lazy("Write a domain like corp.example.com."))
VALUE = _checked(dns.record_value, gettext_lazy("Write an address like 100.64.0.7 or fd7a:115c:a1e0::7."))


class NameserverForm(forms.Form):
    address = forms.CharField(max_length=dns.MAX_URL)
    domain = forms.CharField(max_length=dns.MAX_NAME, required=False)
    use_with_exit_node = forms.BooleanField(required=False)

    def clean_address(self) -> str:
        return ADDRESS(self.cleaned_data["address"])

    def clean_domain(self) -> str:
        domain = str(self.cleaned_data["domain"])
        return DOMAIN(domain) if domain.strip() else ""


class SearchForm(forms.Form):
    domain = forms.CharField(max_length=dns.MAX_NAME)

    def clean_domain(self) -> str:
        return DOMAIN(self.cleaned_data["domain"])


class RecordForm(forms.Form):
    name = forms.CharField(max_length=dns.MAX_NAME)
    value = forms.CharField(max_length=50)

    def clean_name(self) -> str:
        return DOMAIN(self.cleaned_data["name"])

    def clean_value(self) -> str:
        return VALUE(self.cleaned_data["value"])


class _Kind(NamedTuple):
    """A list of the page: how one is added, how one is removed."""

    form: type[forms.Form]
    add: Callable[..., None]
    remove: Callable[..., None]
    keys: tuple[str, ...]  # what names one of them
    added: Promise
    removed: Promise


KINDS = {
    "nameserver": _Kind(
        NameserverForm,
        dns.add_nameserver,
        dns.remove_nameserver,
        ("address", "domain"),
        gettext_lazy("The nameserver is set on every device."),
        gettext_lazy("The nameserver is removed."),
    ),
    "search": _Kind(
        SearchForm,
        dns.add_search_domain,
        dns.remove_search_domain,
        ("domain",),
        gettext_lazy("The domain is searched by every device."),
        gettext_lazy("The search domain is removed."),
    ),
    "record": _Kind(
        RecordForm,
        dns.add_record,
        dns.remove_record,
        ("name", "value"),
        gettext_lazy("Every device knows the name."),
        gettext_lazy("The record is removed."),
    ),
}


def _kind(name: str) -> _Kind:
    if name not in KINDS:
        raise NotFound("there is no such list")
    return KINDS[name]


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def add(request: HttpRequest, kind: str) -> HttpResponse:
    """The form of one more; its POST adds it."""
    membership = _membership(request, Capability.MANAGE_NETWORK)
    chosen = _kind(kind)
    context = _context(membership) | {"kind": kind, "suggestions": SUGGESTIONS, "form": chosen.form()}
    template = f"controlplane/dns_add_{kind}.html"
    if request.method == "GET":
        return sheet(request, template, context)
    form = chosen.form(request.POST)
    if form.is_valid():
        try:
            chosen.add(tailnet=membership.tailnet, by=actor_of(request), **form.cleaned_data)
            return _done(request, membership, str(chosen.added))
        except ApplicationError as error:
            form.add_error(None, error_text(error))
    return sheet(request, template, context | {"form": form}, status=UNPROCESSABLE)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def remove(request: HttpRequest, kind: str) -> HttpResponse:
    """Take one out of its list; GET says what that means."""
    membership = _membership(request, Capability.MANAGE_NETWORK)
    chosen = _kind(kind)
    given = request.GET if request.method == "GET" else request.POST
    named = {key: given.get(key, "") for key in chosen.keys}
    if request.method == "GET":
        context = _context(membership) | {"kind": kind, "named": named.items(), "title": _title(named)}
        return sheet(request, "controlplane/dns_remove.html", context)
    chosen.remove(tailnet=membership.tailnet, by=actor_of(request), **named)
    return _done(request, membership, str(chosen.removed))


def _title(named: dict[str, str]) -> str:
    return named.get("address") or named.get("name") or named["domain"]


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def magic(request: HttpRequest) -> HttpResponse:
    """Switch MagicDNS; GET asks before names stop working."""
    membership = _membership(request, Capability.MANAGE_NETWORK)
    if request.method == "GET":
        return sheet(request, "controlplane/dns_magic_off.html", _context(membership))
    on = request.POST.get("on") == "1"
    dns.set_magic_dns(tailnet=membership.tailnet, by=actor_of(request), on=on)
    return _done(request, membership, _("MagicDNS is on.") if on else _("MagicDNS is off."))


@never_cache
@require_POST
@panel_view
def override(request: HttpRequest) -> HttpResponse:
    """Whether devices use the nameservers for all names in place of their networks'."""
    membership = _membership(request, Capability.MANAGE_NETWORK)
    on = request.POST.get("on") == "1"
    dns.set_override(tailnet=membership.tailnet, by=actor_of(request), on=on)
    on_words = _("Every device uses these nameservers for all names.")
    return _done(request, membership, on_words if on else _("Devices use their networks' nameservers again."))
