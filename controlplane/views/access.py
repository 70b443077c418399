"""Access controls: the policy in rules and as text, changed as a draft, saved when it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.errors import Invalid, PreconditionFailed
from accounts.models import Membership
from accounts.pages import UNPROCESSABLE, actor_of, is_htmx, panel_view, say
from accounts.roles import Capability
from controlplane.netmap.policy.hujson import HuJSONError
from controlplane.netmap.policy.hujson_edit import PathError
from controlplane.rules.edits import NoSuchRule, delete_rule, move_rule, parse_place
from controlplane.rules.problems import Problem
from controlplane.services import policy
from controlplane.views.access_draft import Draft, as_field, membership_with, read_draft, respond

PAGE = "/access"


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """The saved policy, or by POST the text that the reader is working on."""
    writes = request.method == "POST"
    membership = membership_with(request, Capability.MANAGE_NETWORK if writes else Capability.SEE_ALL)
    return respond(request, membership, read_draft(request, membership))


@never_cache
@require_safe
@panel_view
def news(request: HttpRequest) -> HttpResponse:
    """Whether somebody else has saved since the page was made from the text with this ``etag``."""
    membership = membership_with(request, Capability.SEE_ALL)
    current = policy.current_policy(membership.tailnet)
    etag = request.GET.get("etag", "")
    context = {"etag": etag, "news": current if etag and etag != current.etag else None}
    return render(request, "controlplane/_access_news.html", context)


# --- one rule ----------------------------------------------------------------------------------------------

Edit = Callable[[str, str, int], str]
EDITS: dict[str, Edit] = {
    "delete": delete_rule,
    "up": lambda text, section, index: move_rule(text, section, index, -1),
    "down": lambda text, section, index: move_rule(text, section, index, 1),
}


@never_cache
@require_POST
@panel_view
def edit(request: HttpRequest) -> HttpResponse:
    """The draft without a rule, or with it in another place; nothing is saved."""
    membership = membership_with(request, Capability.MANAGE_NETWORK)
    draft = read_draft(request, membership)
    wanted = next((name for name in EDITS if name in request.POST), "")
    if not wanted:
        raise Invalid("say what is to be done with which rule")
    try:
        text = EDITS[wanted](draft.text, *parse_place(request.POST[wanted]))
    except (NoSuchRule, PathError) as error:
        raise Invalid(str(error)) from error
    except HuJSONError:  # the answer says what is wrong with it
        return respond(request, membership, draft, status=UNPROCESSABLE, show="rules")
    response = respond(request, membership, replace(draft, text=text), show="rules", fresh=True)
    done = {"delete": _("The rule is out of the text."), "up": _("Moved up."), "down": _("Moved down.")}
    return say(response, done[wanted])


# --- saving ------------------------------------------------------------------------------------------------


@never_cache
@require_POST
@panel_view
def save(request: HttpRequest) -> HttpResponse:
    """Put the draft in force, unless somebody else has saved meanwhile, or it is refused."""
    membership = membership_with(request, Capability.MANAGE_NETWORK)
    draft = read_draft(request, membership)
    if over := request.POST.get("over"):
        draft = replace(draft, etag=over)
    try:
        policy.save_policy(
            tailnet=membership.tailnet,
            text=draft.text,
            by=actor_of(request),
            etag=draft.etag,
            comment=draft.comment,
        )
    except PreconditionFailed:
        current = policy.current_policy(membership.tailnet)
        return respond(request, membership, draft, status=UNPROCESSABLE, conflict=current)
    except policy.PolicyRefused as error:
        return _refused(request, membership, draft, error)
    if not is_htmx(request):
        return redirect(PAGE)
    current = policy.current_policy(membership.tailnet)
    text = as_field(current.text)
    fresh = replace(draft, text=text, saved=text, etag=current.etag, comment="")
    response = respond(request, membership, fresh, fresh=text != draft.text, saved=True)
    return say(response, _("Saved. Every device follows the new policy."))


def _refused(
    request: HttpRequest, membership: Membership, draft: Draft, error: policy.PolicyRefused
) -> HttpResponse:
    """What is wrong, at its line; failing tests one by one."""
    if error.failures:
        return respond(request, membership, draft, status=UNPROCESSABLE, show="tests", refused=True)
    line, column = error.at or (0, 0)
    problems = [Problem(str(error), line, column)]
    return respond(request, membership, draft, status=UNPROCESSABLE, problems=problems)
