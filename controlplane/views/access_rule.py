"""The dialog of one rule: filled in from the draft, it changes the draft's text in place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from accounts.errors import Invalid
from accounts.models import Membership
from accounts.pages import UNPROCESSABLE, panel_view, say, sheet
from accounts.roles import Capability
from controlplane.netmap.policy.hujson import HuJSONError
from controlplane.netmap.policy.hujson_edit import PathError
from controlplane.rules.edits import NoSuchRule, add_rule, change_rule, parse_place
from controlplane.rules.forms import FORMS, RuleForm
from controlplane.rules.listing import SECTIONS, rule_at
from controlplane.rules.problems import problems_of
from controlplane.views.access_draft import Draft, membership_with, names_in, read_draft, respond

MAX_KNOWN = 60  # names that the dialog lists


@dataclass(frozen=True, slots=True)
class Place:
    """Which rule of the draft is meant; a new one of its section has no index. ``old``: what it says now."""

    section: str
    index: int | None
    old: dict[str, Any]

    @property
    def at(self) -> str:
        return "" if self.index is None else f"{self.section}/{self.index}"


@never_cache
@require_POST
@panel_view
def rule(request: HttpRequest) -> HttpResponse:
    """The dialog of the rule ``at``, or of a new one; with ``apply``, what it says goes into the draft."""
    membership = membership_with(request, Capability.MANAGE_NETWORK)
    draft = read_draft(request, membership)
    try:
        place = _place(request, draft)
    except HuJSONError:
        raise Invalid(_("Mend the text first: it cannot be read as it stands.")) from None
    except (NoSuchRule, PathError) as error:
        raise Invalid(str(error)) from error
    form_class = FORMS[place.section]
    if "apply" not in request.POST or "change" in request.POST:
        return _dialog(request, membership, draft, place, form_class.filled(place.old))
    form = form_class(request.POST)
    text = _applied(draft, place, form) if form.is_valid() else None
    if text is None:
        return _dialog(request, membership, draft, place, form)
    done = _("The rule is in the text. Save to put it in force.")
    return say(respond(request, membership, replace(draft, text=text), show="rules", fresh=True), done)


def _place(request: HttpRequest, draft: Draft) -> Place:
    section = request.POST.get("change") or request.POST.get("section", "")
    if at := request.POST.get("at"):
        section, index = parse_place(at)
        old = rule_at(draft.text, section, index)
        if old is None:
            raise NoSuchRule(f"the text has no rule {at}")
        return Place(section, index, old)
    if section not in SECTIONS:
        raise Invalid("there is no such kind of rule")
    if draft.text.strip():
        rule_at(draft.text, section, 0)  # a text that cannot be read takes no rule
    return Place(section, None, {})


def _applied(draft: Draft, place: Place, form: RuleForm) -> str | None:
    """The text with the form's rule; ``None`` and an error in the form when that would be refused."""
    rule = form.rule(place.old)
    if place.index is None:
        text = add_rule(draft.text, place.section, rule)
    else:
        text = change_rule(draft.text, place.section, place.index, rule)
    problems = problems_of(text)
    if problems and not problems_of(draft.text):
        form.add_error(None, problems[0].message)
        return None
    return text


def _dialog(
    request: HttpRequest,
    membership: Membership,
    draft: Draft,
    place: Place,
    form: RuleForm,
) -> HttpResponse:
    section = SECTIONS[place.section]
    is_new = place.index is None
    context = {
        "title": _("Add a rule") if is_new else f"{section.one} {(place.index or 0) + 1}",
        "draft": draft,
        "at": place.at,
        "section": section,
        "form": form.described(),
        "kinds": SECTIONS.values() if is_new else (),
        "known": names_in(membership)[:MAX_KNOWN],
    }
    return sheet(
        request, "controlplane/access_rule.html", context, status=UNPROCESSABLE if form.is_bound else 200
    )
