"""Webhooks: the list, one webhook with what was sent to it, and what can be done to one."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_htmx.http import HttpResponseClientRedirect

from accounts.errors import ApplicationError, NotFound
from accounts.models import Membership
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
from controlplane.models import Webhook
from controlplane.notices.occasions import CATEGORIES, SUBSCRIPTIONS, UNHEARD
from controlplane.services import webhooks
from controlplane.views.settings import SECTION

PAGE = "/settings/webhooks"
PAGE_SIZE = 20
RECEIVERS = (
    ("", gettext_lazy("Any program (JSON, signed)")),
    ("slack", "Slack"),
    ("mattermost", "Mattermost"),
    ("googlechat", "Google Chat"),
    ("discord", "Discord"),
)


class WebhookForm(forms.Form):
    url = forms.CharField(max_length=500, strip=True)
    provider = forms.ChoiceField(choices=RECEIVERS, required=False)
    subscriptions = forms.MultipleChoiceField(
        choices=[(name, name) for name in sorted(SUBSCRIPTIONS)],
        error_messages={"required": gettext_lazy("Choose at least one event.")},
    )


def _webhook(public_id: str) -> Webhook:
    found = Webhook.objects.select_related("tailnet").filter(public_id=public_id).first()
    if found is None:
        raise NotFound("there is no such webhook, or it is not for you")
    return found


def _path(webhook: Webhook) -> str:
    return f"{PAGE}/{webhook.public_id}"


@never_cache
@require_safe
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """Every webhook of the tailnet."""
    membership = member_with(request, Capability.SEE_ALL)
    context = {
        "section": SECTION,
        "webhooks": list(Webhook.objects.order_by("pk")),
        "may_change": can(membership, Capability.MANAGE_SETTINGS),
    }
    template = "controlplane/webhooks/_list.html" if is_htmx(request) else "controlplane/webhooks/list.html"
    return render(request, template, context)


def _detail(request: HttpRequest, membership: Membership, webhook: Webhook) -> dict[str, Any]:
    rows = Paginator(webhooks.deliveries(webhook), PAGE_SIZE).get_page(request.GET.get("page"))
    return {
        "section": SECTION,
        "webhook": webhook,
        "page": rows,
        "path": _path(webhook),
        "may_change": can(membership, Capability.MANAGE_SETTINGS),
    }


@never_cache
@require_safe
@panel_view
def one(request: HttpRequest, public_id: str) -> HttpResponse:
    """A webhook and its deliveries; only the inside when htmx fetches it again."""
    membership = member_with(request, Capability.SEE_ALL)
    try:
        webhook = _webhook(public_id)
    except NotFound:
        if is_htmx(request):
            return HttpResponseClientRedirect(PAGE)
        raise
    template = "controlplane/webhooks/_one.html" if is_htmx(request) else "controlplane/webhooks/one.html"
    return render(request, template, _detail(request, membership, webhook))


# --- doing something -------------------------------------------------------------------------------------


def _form_sheet(
    request: HttpRequest, form: WebhookForm, webhook: Webhook | None, status: int = 200
) -> HttpResponse:
    context = {
        "section": SECTION,
        "form": form,
        "webhook": webhook,
        "action": _path(webhook) + "/edit" if webhook is not None else PAGE + "/add",
        "categories": CATEGORIES,
        "receivers": RECEIVERS,
        "chosen": form.data.getlist("subscriptions")
        if hasattr(form.data, "getlist")
        else form.data["subscriptions"],
    }
    return sheet(request, "controlplane/webhooks/form.html", context, status=status)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def add(request: HttpRequest) -> HttpResponse:
    """Make a webhook, and show its secret this once."""
    membership = member_with(request, Capability.MANAGE_SETTINGS)
    if request.method == "GET":
        blank = WebhookForm({"url": "", "provider": "", "subscriptions": [CATEGORIES[0].name]})
        return _form_sheet(request, blank, None)
    form = WebhookForm(request.POST)
    if form.is_valid():
        try:
            webhook, secret = webhooks.create_webhook(
                tailnet=membership.tailnet, by=actor_of(request), **form.cleaned_data
            )
            return _secret(request, webhook, secret)
        except ApplicationError as error:
            form.add_error("url", error_text(error))
    return _form_sheet(request, form, None, UNPROCESSABLE)


def _secret(request: HttpRequest, webhook: Webhook, secret: str) -> HttpResponse:
    context = {"section": SECTION, "webhook": webhook, "secret": secret, "path": _path(webhook)}
    return sheet(request, "controlplane/webhooks/secret.html", context)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def edit(request: HttpRequest, public_id: str) -> HttpResponse:
    """Change where it leads and what it tells of."""
    member_with(request, Capability.MANAGE_SETTINGS)
    webhook = _webhook(public_id)
    if request.method == "GET":
        values = {"url": webhook.url, "provider": webhook.provider, "subscriptions": webhook.subscriptions}
        return _form_sheet(request, WebhookForm(values), webhook)
    form = WebhookForm(request.POST)
    if form.is_valid():
        try:
            webhooks.update_webhook(webhook=webhook, by=actor_of(request), **_values(form, webhook))
            return go_to(request, _path(webhook))
        except ApplicationError as error:
            form.add_error("url", error_text(error))
    return _form_sheet(request, form, webhook, UNPROCESSABLE)


def _values(form: WebhookForm, webhook: Webhook) -> dict[str, Any]:
    """What the form says; what a program has subscribed to and no form offers stays."""
    unheard = [name for name in webhook.subscriptions if name in UNHEARD]
    return form.cleaned_data | {"subscriptions": form.cleaned_data["subscriptions"] + unheard}


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def delete(request: HttpRequest, public_id: str) -> HttpResponse:
    """Remove it; GET says what that ends."""
    member_with(request, Capability.MANAGE_SETTINGS)
    webhook = _webhook(public_id)
    if request.method == "GET":
        context = {"section": SECTION, "webhook": webhook, "path": _path(webhook)}
        return sheet(request, "controlplane/webhooks/delete.html", context)
    webhooks.delete_webhook(webhook=webhook, by=actor_of(request))
    return go_to(request, PAGE)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def rotate(request: HttpRequest, public_id: str) -> HttpResponse:
    """Give it another secret; GET says what that breaks."""
    member_with(request, Capability.MANAGE_SETTINGS)
    webhook = _webhook(public_id)
    if request.method == "GET":
        context = {"section": SECTION, "webhook": webhook, "path": _path(webhook)}
        return sheet(request, "controlplane/webhooks/rotate.html", context)
    webhook, secret = webhooks.rotate_webhook(webhook=webhook, by=actor_of(request))
    return _secret(request, webhook, secret)


def _done(request: HttpRequest, membership: Membership, webhook: Webhook, message: str) -> HttpResponse:
    if not is_htmx(request):
        return redirect(_path(webhook))
    fresh = _webhook(webhook.public_id)
    response = render(request, "controlplane/webhooks/_one.html", _detail(request, membership, fresh))
    return say(response, message, close=False)


@never_cache
@require_POST
@panel_view
def enabled(request: HttpRequest, public_id: str) -> HttpResponse:
    """Switch it off or on."""
    membership = member_with(request, Capability.MANAGE_SETTINGS)
    webhook, on = _webhook(public_id), request.POST.get("on") == "1"
    webhooks.update_webhook(webhook=webhook, by=actor_of(request), enabled=on)
    return _done(request, membership, webhook, _("It is told again.") if on else _("It is told no more."))


@never_cache
@require_POST
@panel_view
def test(request: HttpRequest, public_id: str) -> HttpResponse:
    """Send a test event."""
    membership = member_with(request, Capability.MANAGE_SETTINGS)
    webhook = _webhook(public_id)
    webhooks.try_webhook(webhook=webhook, by=actor_of(request))
    return _done(request, membership, webhook, _("A test event is on its way."))


@never_cache
@require_POST
@panel_view
def again(request: HttpRequest, public_id: str, delivery_id: int) -> HttpResponse:
    """Deliver one once more."""
    membership = member_with(request, Capability.MANAGE_SETTINGS)
    webhook = _webhook(public_id)
    webhooks.send_again(webhook=webhook, delivery_id=delivery_id, by=actor_of(request))
    return _done(request, membership, webhook, _("It is sent again."))
