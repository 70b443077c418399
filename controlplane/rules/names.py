"""What can be named in a policy whatever the tailnet has, and the words of the text's editor."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

AUTOGROUP_NAMES = (
    "*",
    "autogroup:member",
    "autogroup:tagged",
    "autogroup:self",
    "autogroup:internet",
    "autogroup:admin",
    "autogroup:owner",
    "autogroup:it-admin",
    "autogroup:network-admin",
    "autogroup:auditor",
    "autogroup:nonroot",
)

# CodeMirror's own words, as it looks them up.
PHRASES = {
    "Find": _("Find"),
    "Replace": _("Replace"),
    "next": _("next"),
    "previous": _("previous"),
    "all": _("all"),
    "match case": _("match case"),
    "by word": _("whole words"),
    "regexp": _("regular expression"),
    "replace": _("replace"),
    "replace all": _("replace all"),
    "close": _("close"),
    "Close": _("Close"),
    "current match": _("current match"),
    "replaced match on line $": _("replaced the match in line $"),
    "replaced $ matches": _("replaced $ matches"),
    "on line": _("in line"),
    "Go to line": _("Go to line"),
    "go": _("go"),
    "Diagnostics": _("Problems"),
    "No diagnostics": _("No problems"),
    "Folded lines": _("Folded lines"),
    "Unfolded lines": _("Unfolded lines"),
    "to": _("to"),
    "folded code": _("folded text"),
    "unfold": _("unfold"),
    "Fold line": _("Fold line"),
    "Unfold line": _("Unfold line"),
    "Completions": _("Suggestions"),
    "$ unchanged lines": _("$ unchanged lines"),
    "Control character": _("Control character"),
    "Selection deleted": _("Selection deleted"),
}
