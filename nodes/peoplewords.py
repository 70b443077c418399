"""What dialogs and toasts say about an action on people, for one by name or for several by number."""

from __future__ import annotations

from typing import NamedTuple

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from nodes.services.members import PersonAction

DANGEROUS = frozenset({PersonAction.SUSPEND, PersonAction.DELETE})


class Words(NamedTuple):
    """``danger``: the button is red."""

    title: str
    button: str
    done: str
    danger: bool


def words_of_one(action: PersonAction, name: str) -> Words:
    """About one person."""
    titles = {
        PersonAction.APPROVE: _("Approve %(name)s?"),
        PersonAction.SUSPEND: _("Suspend %(name)s?"),
        PersonAction.RESTORE: _("Restore %(name)s?"),
        PersonAction.ROLE: _("Role of %(name)s"),
        PersonAction.DELETE: _("Remove %(name)s from the tailnet?"),
    }
    done = {
        PersonAction.APPROVE: _("%(name)s is approved."),
        PersonAction.SUSPEND: _("%(name)s is suspended."),
        PersonAction.RESTORE: _("%(name)s is restored."),
        PersonAction.ROLE: _("%(name)s has another role now."),
        PersonAction.DELETE: _("%(name)s was removed."),
    }
    named = {"name": name}
    return Words(titles[action] % named, _button(action), done[action] % named, action in DANGEROUS)


def words_of_several(action: PersonAction, n: int) -> Words:
    """About a number of people."""
    titles = {
        PersonAction.APPROVE: ngettext("Approve %(n)d person?", "Approve %(n)d people?", n),
        PersonAction.SUSPEND: ngettext("Suspend %(n)d person?", "Suspend %(n)d people?", n),
        PersonAction.RESTORE: ngettext("Restore %(n)d person?", "Restore %(n)d people?", n),
        PersonAction.ROLE: ngettext("Role of %(n)d person", "Role of %(n)d people", n),
        PersonAction.DELETE: ngettext("Remove %(n)d person?", "Remove %(n)d people?", n),
    }
    done = {
        PersonAction.APPROVE: ngettext("%(n)d person is approved.", "%(n)d people are approved.", n),
        PersonAction.SUSPEND: ngettext("%(n)d person is suspended.", "%(n)d people are suspended.", n),
        PersonAction.RESTORE: ngettext("%(n)d person is restored.", "%(n)d people are restored.", n),
        PersonAction.ROLE: ngettext("%(n)d person has another role.", "%(n)d people have another role.", n),
        PersonAction.DELETE: ngettext("%(n)d person was removed.", "%(n)d people were removed.", n),
    }
    counted = {"n": n}
    return Words(titles[action] % counted, _button(action), done[action] % counted, action in DANGEROUS)


def _button(action: PersonAction) -> str:
    return {
        PersonAction.APPROVE: _("Approve"),
        PersonAction.SUSPEND: _("Suspend"),
        PersonAction.RESTORE: _("Restore"),
        PersonAction.ROLE: _("Change role"),
        PersonAction.DELETE: _("Remove"),
    }[action]
