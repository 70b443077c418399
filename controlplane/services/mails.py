"""E-mails about what waits and what ends: a sweep gathers what is new and writes to those who may act.

A sweep rather than a mail for each event: ten devices that join together are one mail, and what was decided
meanwhile is none. Each thing is mailed about once; an offer that is withdrawn and made again waits anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.template.loader import render_to_string
from django.utils import timezone, translation
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts.access import require_right
from accounts.actors import Actor
from accounts.changes import write
from accounts.models import Membership, Outbox, Tailnet, User
from accounts.roles import Capability, can
from accounts.services import audit
from accounts.services.outbox import enqueue
from controlplane.models import MailNotices
from nodes.approvals import NEEDS, Kind, Ref, waiting
from nodes.models import Node, Route
from nodes.selectors import ends_within

MAX_LINES = 20  # things named in one mail
MAX_TOLD = 2000  # things of which is kept that they were mailed about
MAX_READERS = 50  # people who get one mail
MAX_FAILED = 5  # undelivered mails shown on the settings page
ENDS = (timedelta(days=1), timedelta(days=7))  # how long before a key ends its owner is told; shortest first


class Notice(StrEnum):
    """What is mailed about, each to be switched off for a tailnet."""

    DEVICES = "mail-devices"
    OFFERS = "mail-offers"
    PEOPLE = "mail-people"
    KEYS = "mail-keys"


NOTICE_OF: dict[Kind, Notice] = {
    Kind.DEVICE: Notice.DEVICES,
    Kind.ROUTE: Notice.OFFERS,
    Kind.EXIT_NODE: Notice.OFFERS,
    Kind.PERSON: Notice.PEOPLE,
}
WORDS: dict[Notice, tuple[str | Promise, str | Promise]] = {
    Notice.DEVICES: (
        gettext_lazy("A device waits"),
        gettext_lazy("To those who may approve devices, soon after one has asked to come in."),
    ),
    Notice.OFFERS: (
        gettext_lazy("A route or exit node waits"),
        gettext_lazy("To those who may approve routes, soon after a device has offered one."),
    ),
    Notice.PEOPLE: (
        gettext_lazy("A person waits"),
        gettext_lazy("To those who may approve people."),
    ),
    Notice.KEYS: (
        gettext_lazy("A sign-in ends"),
        gettext_lazy("To the owner of the device, seven days and one day before its key ends."),
    ),
}


# --- switches ----------------------------------------------------------------------------------------------


def notices_off() -> frozenset[str]:
    """What the open tailnet has switched off."""
    row = MailNotices.objects.first()
    return frozenset(row.off) if row is not None else frozenset()


def switch_notice(*, tailnet: Tailnet, notice: Notice, on: bool, by: Actor) -> None:
    """Have mails of a kind sent or not."""
    with write(tailnet) as change:
        require_right(by, Capability.MANAGE_SETTINGS)
        row, _made = MailNotices.objects.get_or_create(tailnet=change.tailnet)
        was_on = notice.value not in row.off
        if was_on == on:
            return
        row.off = sorted({*row.off, notice.value} - ({notice.value} if on else set()))
        row.save(update_fields=["off"])
        change.upsert("tailnet", tailnet.pk)
        audit.record(
            tailnet=change.tailnet,
            by=by,
            action="UPDATE",
            target_type="TAILNET",
            target_id=tailnet.pk,
            target_name=tailnet.name,
            target_property=notice.value.upper().replace("-", "_"),
            old=was_on,
            new=on,
        )


def undelivered() -> list[Outbox]:
    """Mails of the open tailnet that were given up, newest first."""
    rows = Outbox.objects.filter(kind=Outbox.Kind.MAIL, failed_at__isnull=False)
    return list(rows.order_by("-pk")[:MAX_FAILED])


# --- what waits --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing that waits: what it is, and how a mail names it."""

    ref: Ref
    name: str


def things_that_wait() -> list[Thing]:
    """What waits in the open tailnet, at most :data:`MAX_TOLD`: each kind in turn, the oldest first."""
    seer = Membership.objects.filter(role="owner").order_by("pk").first()
    if seer is None:
        return []
    things = (
        Thing(Ref(kind, one.pk), _name(one))
        for kind in Kind
        for one in waiting(kind, seer).order_by("pk")[:MAX_TOLD]
    )
    return list(islice(things, MAX_TOLD))


def _name(one: Node | Membership | Route) -> str:
    if isinstance(one, Membership):
        return one.user.login_name
    if isinstance(one, Route):
        return f"{one.prefix} ({one.node.name})"
    return f"{one.name} ({one.user.login_name})" if one.user is not None else one.name


def tell_of_waiting(*, tailnet: Tailnet, now: datetime | None = None) -> int:
    """Write to those who may decide about what waits since the last sweep; returns how many mails."""
    now, mails = now or timezone.now(), 0
    kept = MailNotices.objects.first()
    if _refs(things_that_wait()) == (kept.told if kept is not None else []):
        return 0  # as mostly: known without holding the tailnet's row
    with write(tailnet) as change:
        row, _made = MailNotices.objects.get_or_create(tailnet=change.tailnet)
        things = things_that_wait()
        told = set(row.told)
        new = [one for one in things if str(one.ref) not in told and NOTICE_OF[one.ref.kind] not in row.off]
        row.told = _refs(things)
        row.save(update_fields=["told"])
        for member in _readers() if new else ():
            theirs = [one.name for one in new if can(member, NEEDS[one.ref.kind])]
            mails += theirs != [] and _mail_of_waiting(change.tailnet, member.user, theirs, now)
    return mails


def _refs(things: Iterable[Thing]) -> list[str]:
    return sorted(str(one.ref) for one in things)


def _readers() -> Iterable[Membership]:
    """Active people with an address that mail reaches (the first owner may have none)."""
    people = Membership.objects.select_related("user").filter(status=Membership.Status.ACTIVE)
    return people.exclude(user__email__iendswith="@localhost").order_by("pk")[:MAX_READERS]


def _mail_of_waiting(tailnet: Tailnet, reader: User, names: list[str], now: datetime) -> bool:
    with translation.override(_language(reader)):
        count = len(names)
        heading = ngettext(
            "%(n)d thing waits for your approval in %(tailnet)s",
            "%(n)d things wait for your approval in %(tailnet)s",
            count,
        ) % {"n": count, "tailnet": tailnet.title}
        why = _("You may decide about it in %(tailnet)s. These mails are switched off in its settings.")
        return _write(
            tailnet,
            reader,
            heading,
            names,
            path="/approvals",
            button=_("Review"),
            why=why % {"tailnet": tailnet.title},
        )


# --- what ends ---------------------------------------------------------------------------------------------


def ends_soon(now: datetime) -> Q:
    """The devices whose owners may have to be told."""
    return ends_within(max(ENDS), now)


def tell_of_ending(*, tailnet: Tailnet, now: datetime | None = None) -> int:
    """Write to owners whose devices' keys end in a week or a day, once each; returns how many mails."""
    now = now or timezone.now()
    if Notice.KEYS in notices_off():
        return 0
    mails = 0
    with write(tailnet) as change:
        for node in Node.objects.select_related("user").filter(ends_soon(now)).order_by("key_expiry", "pk"):
            if node.user is not None and node.key_expiry is not None:
                mails += _mail_of_ending(change.tailnet, node.user, node, node.key_expiry, now)
    return mails


def _mail_of_ending(tailnet: Tailnet, owner: User, node: Node, end: datetime, now: datetime) -> bool:
    before = next(length for length in ENDS if end <= now + length)
    once = f"ends.{node.pk}.{int(end.timestamp())}.{before.days}"
    with translation.override(_language(owner)):
        words = {"name": node.name, "tailnet": tailnet.title}
        heading = (
            _("The sign-in of %(name)s ends within a day")
            if before.days == 1
            else _("The sign-in of %(name)s ends within %(days)d days")
        ) % (words | {"days": before.days})
        line = _("Sign in again on the device, with: trenza up --force-reauth")
        why = _("The device %(name)s in %(tailnet)s is yours. Without a new sign-in it is cut off.") % words
        path = f"/devices/{node.stable_id}"
        return _write(
            tailnet, owner, heading, [line], path=path, button=_("Open the device"), why=why, once=once
        )


# --- writing -----------------------------------------------------------------------------------------------


def _language(reader: User) -> str:
    return reader.language or settings.LANGUAGE_CODE


def _write(
    tailnet: Tailnet,
    reader: User,
    heading: str,
    lines: Collection[str],
    *,
    path: str,
    button: str,
    why: str,
    once: str | None = None,
) -> bool:
    """Note one mail in the open transaction, as text and as HTML; ``False`` when it was noted already."""
    shown, left = list(lines)[:MAX_LINES], len(lines) - MAX_LINES
    more = ngettext("and %(n)d more", "and %(n)d more", left) % {"n": left} if left > 0 else ""
    link = settings.BASE_URL + path
    parts = [heading, "\n".join(f"- {line}" for line in shown), more, link, why]
    context: dict[str, Any] = {
        "language": translation.get_language(),
        "heading": heading,
        "lines": shown,
        "more": more,
        "link": link,
        "button": button,
        "why": why,
    }
    payload = {
        "text": "\n\n".join(part for part in parts if part),
        "html": render_to_string("mail/notice.html", context),
    }
    row = enqueue(
        tailnet=tailnet,
        kind=Outbox.Kind.MAIL,
        target=reader.email,
        subject=heading,
        payload=payload,
        idempotency_key=once,
    )
    return row is not None
