"""What a bulk action is called, what follows from it, and what came of it, in the reader's language."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts.models import Membership
from accounts.roles import can
from nodes.access import NodeAction
from nodes.services.bulk import NEEDS, BulkAction, Refusal

A = BulkAction


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The dialog's: its title with the number, its button, the consequences one by one."""

    title: str
    button: str
    danger: bool
    consequences: list[str]


@dataclass(frozen=True, slots=True)
class Choice:
    """One button below the list."""

    value: str
    icon: str
    word: str | Promise
    danger: bool = False


CHOICES = (
    Choice(A.APPROVE.value, "check", gettext_lazy("Approve")),
    Choice(A.REJECT.value, "ban", gettext_lazy("Reject")),
    Choice(A.EXPIRE.value, "key-off", gettext_lazy("Expire keys")),
    Choice(A.KEEP_KEY.value, "calendar-x", gettext_lazy("Never expire")),
    Choice(A.LET_EXPIRE.value, "clock", gettext_lazy("Let expire")),
    Choice(A.DELETE.value, "trash", gettext_lazy("Delete"), danger=True),
)


BUTTONS = {BulkAction(one.value): one.word for one in CHOICES}


def bulk_choices(membership: Membership) -> list[Choice]:
    """The actions that this role may do to any device, or to one's own."""
    return [one for one in CHOICES if _may_some(membership, NEEDS[BulkAction(one.value)])]


def may_delete_some(membership: Membership) -> bool:
    """Whether the role deletes any device, or its own."""
    return _may_some(membership, NodeAction.DELETE)


def _may_some(membership: Membership, action: NodeAction) -> bool:
    needs = action.value
    return can(membership, needs.any) or (needs.own is not None and can(membership, needs.own))


def words(action: BulkAction, n: int) -> Words:
    """The dialog that asks whether to do it to ``n`` devices."""
    danger = action in (A.REJECT, A.EXPIRE, A.DELETE)
    return Words(
        title=_title(action, n), button=str(BUTTONS[action]), danger=danger, consequences=_says(action)
    )


def _title(action: BulkAction, n: int) -> str:
    titles = {
        A.APPROVE: ngettext("Approve %(n)d device?", "Approve %(n)d devices?", n),
        A.REJECT: ngettext("Turn %(n)d device away?", "Turn %(n)d devices away?", n),
        A.EXPIRE: ngettext("Expire the key of %(n)d device now?", "Expire the keys of %(n)d devices now?", n),
        A.KEEP_KEY: ngettext(
            "Never let the key of %(n)d device expire?", "Never let the keys of %(n)d devices expire?", n
        ),
        A.LET_EXPIRE: ngettext(
            "Let the key of %(n)d device expire again?", "Let the keys of %(n)d devices expire again?", n
        ),
        A.DELETE: ngettext("Delete %(n)d device?", "Delete %(n)d devices?", n),
    }
    return titles[action] % {"n": n}


def _says(action: BulkAction) -> list[str]:
    return {
        A.APPROVE: [_("They reach the other devices of this tailnet, and are reached, within seconds.")],
        A.REJECT: [
            _("They are removed from the list and learn that they were turned away."),
            _("To ask again, somebody has to sign in on each of them once more."),
        ],
        A.EXPIRE: [
            _("Other devices lose them within seconds: their connections end, also those in use now."),
            _("They keep their names and addresses. To come back, somebody signs in again on each of them."),
        ],
        A.KEEP_KEY: [
            _("They stay connected without anybody signing in again, until somebody ends their keys.")
        ],
        A.LET_EXPIRE: [
            _("Keys whose time has passed already get a fresh period; nothing is cut off at once.")
        ],
        A.DELETE: [
            _("This cannot be undone. Their connections end within seconds."),
            _("Their addresses, approvals, routes and notes are given up."),
            _("Signing in on them again makes new devices with other addresses."),
        ],
    }[action]


def done_words(action: BulkAction, n: int) -> str:
    """What was done to ``n`` devices."""
    texts = {
        A.APPROVE: ngettext("%(n)d device is approved.", "%(n)d devices are approved.", n),
        A.REJECT: ngettext("%(n)d device was turned away.", "%(n)d devices were turned away.", n),
        A.EXPIRE: ngettext("The key of %(n)d device has ended.", "The keys of %(n)d devices have ended.", n),
        A.KEEP_KEY: ngettext(
            "The key of %(n)d device no longer expires.", "The keys of %(n)d devices no longer expire.", n
        ),
        A.LET_EXPIRE: ngettext(
            "The key of %(n)d device expires again.", "The keys of %(n)d devices expire again.", n
        ),
        A.DELETE: ngettext("%(n)d device is deleted.", "%(n)d devices are deleted.", n),
    }
    return texts[action] % {"n": n}


def refused_words(action: BulkAction, why: Refusal, n: int) -> str:
    """Why ``n`` devices are left as they are."""
    if why == Refusal.GONE:
        text = ngettext("%(n)d device has gone meanwhile", "%(n)d devices have gone meanwhile", n)
    elif why == Refusal.ROLE:
        text = ngettext(
            "%(n)d device is left as it is: your role does not include it",
            "%(n)d devices are left as they are: your role does not include them",
            n,
        )
    else:
        text = _left_words(action, n)
    return text % {"n": n}


def _left_words(action: BulkAction, n: int) -> str:
    if action in (A.APPROVE, A.REJECT):
        return ngettext(
            "%(n)d device is left as it is: it does not wait for approval",
            "%(n)d devices are left as they are: they do not wait for approval",
            n,
        )
    if action == A.EXPIRE:
        return ngettext(
            "%(n)d device is left as it is: it has no key in use",
            "%(n)d devices are left as they are: they have no key in use",
            n,
        )
    return ngettext(
        "%(n)d device is left as it is: it is tagged, or set so already",
        "%(n)d devices are left as they are: they are tagged, or set so already",
        n,
    )
