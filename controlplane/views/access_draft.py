"""A policy text while somebody works on it, and what is shown beside it: rules, tests, preview, history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.access import require
from accounts.errors import Forbidden, NotFound
from accounts.models import Membership
from accounts.pages import is_htmx, membership_of
from accounts.roles import Capability, can
from accounts.selectors import login_names
from controlplane.models import PolicyVersion
from controlplane.netmap.policy.hujson import parse
from controlplane.rules.gains import gains_in_words
from controlplane.rules.listing import Group, items_of, list_rules
from controlplane.rules.names import AUTOGROUP_NAMES, PHRASES
from controlplane.rules.outcomes import outcome_of
from controlplane.rules.problems import Problem, problems_of
from controlplane.services import policy
from controlplane.services.evaluations import evaluated
from controlplane.services.policypreview import preview_policy
from nodes.access import visible_nodes
from nodes.listing import known_tags

SECTION = "access"
MAX_COMMENT = 500
MAX_DIGITS = 9  # of a version's number
MAX_NAMES = 200  # people, and tags, that the editor offers
PAGE_SIZE = 30  # versions
TABS: dict[str, str | Promise] = {
    "rules": gettext_lazy("Rules"),
    "tests": gettext_lazy("Tests"),
    "preview": gettext_lazy("Preview"),
    "history": gettext_lazy("History"),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A text as the reader has it. ``etag``: of the saved one that they began with; ``saved``: today's."""

    text: str
    saved: str
    etag: str
    comment: str = ""

    @property
    def is_changed(self) -> bool:
        return self.text != self.saved


def membership_with(request: HttpRequest, capability: Capability) -> Membership:
    """The reader's place; missing and forbidden look alike."""
    try:
        return require(membership_of(request), capability)
    except Forbidden as error:
        raise NotFound(str(error)) from error


def read_draft(request: HttpRequest, membership: Membership) -> Draft:
    """What the form says, or the saved text. Browsers end a field's lines with CR and LF."""
    current = policy.current_policy(membership.tailnet)
    saved = as_field(current.text)
    if request.method != "POST" or "text" not in request.POST:
        return Draft(saved, saved, current.etag)
    text = as_field(request.POST["text"])
    return Draft(
        text, saved, request.POST.get("etag") or current.etag, request.POST.get("comment", "")[:MAX_COMMENT]
    )


def as_field(text: str) -> str:
    """A text as a browser's field holds it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def shown(request: HttpRequest) -> str:
    """Which tab was asked for."""
    values = request.POST if request.method == "POST" else request.GET
    wanted = values.get("show") or values.get("showing", "")
    return wanted if wanted in TABS else "rules"


# --- what a page shows -------------------------------------------------------------------------------------


def respond(
    request: HttpRequest,
    membership: Membership,
    draft: Draft,
    *,
    status: int = 200,
    problems: Sequence[Problem] | None = None,
    **more: Any,
) -> HttpResponse:
    """The page of a draft; only what stands beside the text when htmx asks."""
    show = more.pop("show", shown(request))
    problems = problems_of(draft.text) if problems is None else problems
    context = {
        "draft": draft,
        "show": show,
        "section": SECTION,
        "may_change": can(membership, Capability.MANAGE_NETWORK),
        "problems": problems,
        "problems_json": problems_json(problems),
        "tabs": [{"key": key, "word": word} for key, word in TABS.items()],
        "adds_to": _adds_to(draft.text),
    }
    context |= _panel(request, membership, draft, show, problems) | more
    if is_htmx(request):
        return render(request, "controlplane/_access.html", context, status=status)
    context |= {"names": json.dumps(names_in(membership)), "phrases": json.dumps(editor_phrases())}
    return render(request, "controlplane/access.html", context, status=status)


def _adds_to(text: str) -> str:
    """Where a new rule goes: to its like, if the text has only access rules."""
    try:
        root = parse(text)
    except ValueError:
        return "grants"
    return "acls" if items_of(root, "acls") and not items_of(root, "grants") else "grants"


def _checked(membership: Membership, draft: Draft, show: str) -> dict[str, Any]:
    """What only the whole tailnet tells: how the tests end, or who gains and who loses."""
    tailnet = membership.tailnet
    try:
        if show == "preview":
            found = preview_policy(tailnet=tailnet, text=draft.text)
            return {"preview": gains_in_words(found.comparison, found.snapshot)}
        checked = policy.parse_for(evaluated(tailnet).snapshot, draft.text)
    except policy.PolicyRefused as error:
        problem = Problem(str(error), *(error.at or (0, 0)))
        return {"problems": [problem], "problems_json": problems_json([problem])}
    warnings = [Problem(text, severity="warning") for text in checked.warnings]
    return {"outcome": outcome_of(checked.policy, checked.failures), "problems": warnings}


def problems_json(problems: Sequence[Problem]) -> str:
    """Problems as the editor marks them."""
    return json.dumps([one.plain() for one in problems])


def _panel(
    request: HttpRequest, membership: Membership, draft: Draft, show: str, problems: Sequence[Problem]
) -> dict[str, Any]:
    """What the chosen tab shows."""
    if show == "history":
        return _history(request)
    if show == "rules":
        return {"groups": _rules(draft.text)}
    is_glance = "glance" in request.POST
    broken = any(one.severity == "error" for one in problems)
    if is_glance or broken:
        return {"stale": is_glance and not broken, "outcome": None, "preview": None}
    return _checked(membership, draft, show)


def _rules(text: str) -> list[Group] | None:
    """The rules that the text has; ``None`` when it cannot be read."""
    try:
        return list_rules(text) if text.strip() else []
    except ValueError:
        return None


def _history(request: HttpRequest) -> dict[str, Any]:
    """One slice of the versions, the newest first."""
    before = number_in(request.GET.get("before", ""))
    found = PolicyVersion.objects.defer("text").order_by("-number")
    if before is not None:
        found = found.filter(number__lt=before)
    versions = list(found[: PAGE_SIZE + 1])
    older = versions[PAGE_SIZE - 1].number if len(versions) > PAGE_SIZE else None
    return {"versions": versions[:PAGE_SIZE], "versions_older": older, "versions_before": before}


def number_in(text: str) -> int | None:
    """A version's number as an address has it."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


def names_in(membership: Membership) -> list[str]:
    """What the editor offers to write: autogroups, people, and tags in use."""
    tags = known_tags(visible_nodes(membership))
    return [*AUTOGROUP_NAMES, *tags[:MAX_NAMES], *(login for _pk, login in login_names(MAX_NAMES))]


def refusal_words(error: policy.PolicyRefused) -> list[str]:
    """Why a text was refused: what is wrong with it, and the tests that fail."""
    failed = [f"{one.source}: {'; '.join(one.errors)}" for one in error.failures]
    where = ""
    if error.at is not None:
        where = _("Line %(line)d, column %(column)d") % {"line": error.at[0], "column": error.at[1]}
    return [": ".join(filter(None, (where, str(error)))), *failed]


def editor_phrases() -> dict[str, str]:
    """The editor's own words in the reader's language."""
    return {english: str(word) for english, word in PHRASES.items()}
