"""Contacts of a tailnet: changed, and verified by a link that is mailed to them.

Whoever opens the link reads the mail sent there, and that is all that it proves. It works once, and for a
week.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from accounts.access import require_right
from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.credentials import new_url_token
from accounts.errors import Conflict, Gone, LimitExceeded
from accounts.models import AuditEvent, Contact, Outbox, Tailnet
from accounts.roles import Capability
from accounts.selectors import owner
from accounts.services import audit, outbox
from accounts.services.people import check_email
from accounts.tenancy import find_by_credential

LIFETIME = timedelta(days=7)
TARGET, PROPERTY = "TAILNET", "CONTACT_"
# A tailnet is anybody's to make, and its contacts are theirs to choose: it must not write to the whole world.
MAX_MAILED = 20
MAILED_WITHIN = timedelta(days=1)
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
    _forget_mail(row)
    row.verified_email, row.token_hash, row.expires = row.email, None, None
    row.save()


def _ask(row: Contact, by: Actor, now: datetime) -> None:
    """Have the address wait for its verification, with a link on its way to it where the server has mail."""
    _forget_mail(row)
    row.token_hash, row.expires = None, None
    if not settings.MAIL_IS_SET_UP:
        row.save()
        return
    _check_mailed(row.tailnet, now)
    secret = new_url_token()
    row.token_hash, row.expires = secret.digest, now + LIFETIME
    row.save()
    with translation.override(_language(by)):
        _note_mail(row, f"{settings.BASE_URL}/contacts/verify/{secret.text}", secret.digest)


def _language(by: Actor) -> str:
    return (by.user.language if by.user is not None else "") or translation.get_language() or "en"


def _check_mailed(tailnet: Tailnet, now: datetime) -> None:
    sent = AuditEvent.objects.filter(
        target_type=TARGET,
        target_id=str(tailnet.pk),
        target_property__startswith=PROPERTY,
        action__in=("UPDATE", "RESEND"),
        event_time__gt=now - MAILED_WITHIN,
    )
    times = sent.order_by("-pk").values_list("event_time", flat=True)[:MAX_MAILED]
    if len(times) == MAX_MAILED:
        left = times[MAX_MAILED - 1] + MAILED_WITHIN - now
        raise LimitExceeded(
            f"at most {MAX_MAILED} addresses a day are asked to verify themselves",
            retry_after=max(1, int(left.total_seconds())),
        )


def _note_mail(row: Contact, link: str, digest: str) -> None:
    words = {"tailnet": row.tailnet.title, "email": row.email, "link": link, "days": LIFETIME.days}
    outbox.enqueue(
        tailnet=row.tailnet,
        kind=Outbox.Kind.MAIL,
        target=row.email,
        subject=_("Confirm that %(tailnet)s may write to you") % words,
        payload={
            "text": _(
                "Somebody who manages the private network %(tailnet)s on Trenza wants what concerns it "
                "to be mailed to %(email)s.\n\n"
                "Open this link to confirm that this address is yours:\n\n%(link)s\n\n"
                "It works once and for %(days)d days. If you do not know this network, do nothing."
            )
            % words
        },
        idempotency_key=f"{_mail_key(row)}{digest[:16]}",
    )


def _mail_key(row: Contact) -> str:
    return f"contact-{row.kind}-"


def _forget_mail(row: Contact) -> None:
    """Its mail bears the link: none is kept longer than the link works, and none is sent for nothing."""
    Outbox.objects.filter(idempotency_key__startswith=_mail_key(row)).delete()


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
