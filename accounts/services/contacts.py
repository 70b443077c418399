"""Contacts of a tailnet: changed, and verified by a link that is mailed to them.

Whoever opens the link reads the mail sent there, and that is all that it proves. It works once, and for a
week.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.access import require_right
from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.credentials import NewSecret, new_url_token
from accounts.errors import Conflict, Gone, LimitExceeded
from accounts.models import AuditEvent, Contact, Tailnet
from accounts.roles import Capability
from accounts.selectors import owner
from accounts.services import audit
from accounts.services.linkmails import LIFETIME, forget_mails, full_until, in_language_of, note_mail
from accounts.services.people import check_email
from accounts.tenancy import find_by_credential

TARGET, PROPERTY = "TAILNET", "CONTACT_"
MAX_MAILED = 20  # addresses that are asked within a day
NO_MAIL = "the server has no mail server and cannot verify addresses: set TRENZA_EMAIL_URL, then ask again"


def set_contact(
    *, tailnet: Tailnet, kind: Contact.Kind, email: str, by: Actor, now: datetime | None = None
) -> None:
    """Give a tailnet another contact. One that nobody has verified yet is mailed a link.

    Without a mail server the address is kept and waits. Raises ``LimitExceeded`` after :data:`MAX_MAILED`
    a day.
    """
    now, email = now or timezone.now(), check_email(email)
    with write(tailnet) as change:
        require_right(by, Capability.MANAGE_SETTINGS)
        owners = _owners_address()
        row = Contact.objects.filter(kind=kind).first()
        old = row.email if row is not None else owners
        if email == old:
            return
        row = row or Contact(tailnet=change.tailnet, kind=kind)
        row.email = email
        if email.lower() in (row.verified_email.lower(), owners.lower()):
            _settle(row)
        else:
            _ask(row, by, now)
        _recorded(change, row, by, "UPDATE", old=old, new=email)


def send_verification(
    *, tailnet: Tailnet, kind: Contact.Kind, by: Actor, now: datetime | None = None
) -> None:
    """Mail the link again, a new one; the old one stops working."""
    now = now or timezone.now()
    with write(tailnet) as change:
        require_right(by, Capability.MANAGE_SETTINGS)
        row = Contact.objects.filter(kind=kind).first()
        if row is None or not row.needs_verification:
            raise Conflict("this address needs no verification")
        if not settings.MAIL_IS_SET_UP:
            raise Conflict(NO_MAIL)
        _ask(row, by, now)
        _recorded(change, row, by, "RESEND")


def find_contact(*, token: str, now: datetime | None = None) -> Contact:
    """The contact behind a link, its tailnet loaded; raises :class:`Gone`."""
    found = find_by_credential("contact", token)
    if not isinstance(found, Contact) or found.expires is None or found.expires <= (now or timezone.now()):
        raise Gone("this link was used, was replaced by a newer one, or has run out")
    return found


def verify_contact(*, token: str, now: datetime | None = None) -> Contact:
    """What opening the link and confirming it does; raises :class:`Gone`."""
    found = find_contact(token=token, now=now)
    with write(found.tailnet_id) as change:
        row = Contact.objects.filter(pk=found.pk, token_hash=found.token_hash).first()
        if row is None:
            raise Gone("this link was used a moment ago")
        _settle(row)
        _recorded(change, row, Actor.system(), "APPROVE", details="by the link that was mailed there")
        return row


def _owners_address() -> str:
    user = owner()
    return user.email if user is not None else ""


def _settle(row: Contact) -> None:
    """The address counts from now on."""
    forget_mails(_mail_key(row))
    row.verified_email, row.token_hash, row.expires = row.email, None, None
    row.save()


def _ask(row: Contact, by: Actor, now: datetime) -> None:
    """Have the address wait for its verification, with a link on its way to it where the server has mail."""
    forget_mails(_mail_key(row))
    row.token_hash, row.expires = None, None
    if not settings.MAIL_IS_SET_UP:
        row.save()
        return
    _check_mailed(row.tailnet, now)
    secret = new_url_token()
    row.token_hash, row.expires = secret.digest, now + LIFETIME
    row.save()
    with in_language_of(by):
        _note_mail(row, secret)


def _check_mailed(tailnet: Tailnet, now: datetime) -> None:
    sent = AuditEvent.objects.filter(
        target_type=TARGET,
        target_id=str(tailnet.pk),
        target_property__startswith=PROPERTY,
        action__in=("UPDATE", "RESEND"),
    )
    full = full_until(sent, most=MAX_MAILED, now=now)
    if full is not None:
        raise LimitExceeded(
            f"at most {MAX_MAILED} addresses a day are asked to verify themselves",
            retry_after=max(1, int((full - now).total_seconds())),
        )


def _note_mail(row: Contact, secret: NewSecret) -> None:
    words = {
        "tailnet": row.tailnet.title,
        "email": row.email,
        "link": f"{settings.BASE_URL}/contacts/verify/{secret.text}",
        "days": LIFETIME.days,
    }
    note_mail(
        tailnet=row.tailnet,
        key=_mail_key(row),
        secret=secret,
        to=row.email,
        subject=_("Confirm that %(tailnet)s may write to you") % words,
        text=_(
            "Somebody who manages the private network %(tailnet)s on Trenza wants what concerns it "
            "to be mailed to %(email)s.\n\n"
            "Open this link to confirm that this address is yours:\n\n%(link)s\n\n"
            "It works once and for %(days)d days. If you do not know this network, do nothing."
        )
        % words,
    )


def _mail_key(row: Contact) -> str:
    return f"contact-{row.kind}-"


def _recorded(
    change: ChangeSet,
    row: Contact,
    by: Actor,
    action: str,
    *,
    old: Any = None,
    new: Any = None,
    details: str = "",
) -> None:
    change.upsert("contact", row.pk)
    audit.record(
        tailnet=change.tailnet,
        by=by,
        action=action,
        target_type=TARGET,
        target_id=change.tailnet.pk,
        target_name=change.tailnet.name,
        target_property=f"{PROPERTY}{row.kind.upper()}",
        old=old,
        new=new,
        details=details,
    )
