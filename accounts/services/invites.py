"""Invitations by e-mail link: made, sent again, withdrawn, accepted.

The link is the proof: whoever opens it signed in joins, whatever their address is. It works once and for a
week, and only as long as whoever sent it could still send it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.credentials import NewSecret, new_url_token
from accounts.errors import Conflict, Forbidden, Gone, Invalid, NotFound
from accounts.models import AuditEvent, Invite, Membership, Outbox, Tailnet, User
from accounts.roles import Capability, Role, can, outranks
from accounts.services import audit
from accounts.services.linkmails import LIFETIME, forget_mails, full_until, in_language_of, note_mail
from accounts.services.people import acting_membership, add_member, approve_member, check_email
from accounts.tenancy import find_by_credential, scope
from accounts.words import role_word

TARGET = "USER_INVITE"
MAIL_KEY = "invite-"  # what the keys of their mails in the outbox begin with
MAX_OPEN = 1000  # invitations of one tailnet that nobody has accepted
MAX_MAILED = 100  # within a day; further ones are links to pass on


@dataclass(frozen=True, slots=True)
class NewInvite:
    """An invitation just made or sent again; ``link`` is shown once, ``mailed`` says whether it goes out."""

    invite: Invite
    link: str = field(repr=False)
    mailed: bool = False


def create_invite(
    *, tailnet: Tailnet, email: str, role: str = Role.MEMBER, by: Actor, now: datetime | None = None
) -> NewInvite:
    """Invite an address: its mail goes out where the server has a mail server; the link is returned.

    Without an address whoever gets the link from the sender is invited.
    """
    now, email = now or timezone.now(), check_email(email) if email else ""
    secret = new_url_token()
    with write(tailnet) as change:
        _require_right(by, role)
        open_ones = Invite.objects.filter(accepted_at__isnull=True)
        if email and open_ones.filter(email__iexact=email, expires__gt=now).exists():
            raise Conflict(f"{email} has an open invitation already: send that one again")
        if open_ones.count() >= MAX_OPEN:
            raise Invalid(f"at most {MAX_OPEN} invitations can be open: withdraw some first")
        invite = Invite.objects.create(
            tailnet=change.tailnet,
            email=email,
            role=Role(role).value,
            token_hash=secret.digest,
            invited_by=by.user,
            created=now,
            expires=now + LIFETIME,
        )
        _recorded(change, invite, by, "CREATE")
        return _sent(invite, secret, by)


def create_invites(*, tailnet: Tailnet, wanted: Sequence[tuple[str, str]], by: Actor) -> list[NewInvite]:
    """Invite several, each an address and a role: all of them or, where one is refused, none."""
    with write(tailnet) as change:
        return [
            create_invite(tailnet=change.tailnet, email=email, role=role, by=by) for email, role in wanted
        ]


def renew_invite(*, invite: Invite, by: Actor, now: datetime | None = None) -> NewInvite:
    """Send an invitation again with a new link and a new week; the old link stops working."""
    now = now or timezone.now()
    secret = new_url_token()
    with write(invite.tailnet_id) as change:
        row = _open_row(invite)
        _require_right(by, row.role)
        forget_mails(_mail_key(row))
        row.token_hash, row.expires, row.invited_by = secret.digest, now + LIFETIME, by.user
        row.save(update_fields=["token_hash", "expires", "invited_by"])
        _recorded(change, row, by, "RENEW")
        return _sent(row, secret, by)


def revoke_invite(*, invite: Invite, by: Actor) -> None:
    """Withdraw an invitation: its link stops working at once."""
    with write(invite.tailnet_id) as change:
        row = _open_row(invite)
        _require_right(by, row.role)
        forget_mails(_mail_key(row))
        change.delete("invite", row.pk)
        _audit(change, row, by, "REVOKE")
        row.delete()


def find_invite(*, token: str, now: datetime | None = None) -> Invite:
    """The open invitation behind a link, its tailnet and sender loaded; raises :class:`Gone`."""
    found = find_by_credential("invite", token)
    if found is None:
        raise Gone("this invitation was withdrawn, or never was")
    with scope(tailnet=found.tailnet_id):
        return _usable(Invite.objects.filter(pk=found.pk).first(), now or timezone.now())


def accept_invite(*, token: str, user: User, now: datetime | None = None) -> Membership:
    """Join by an invitation; it works once. Who waits for approval is let in by it, with its role.

    Raises :class:`Conflict` for somebody who is in already or suspended: the invitation stays open then.
    """
    now = now or timezone.now()
    found = find_invite(token=token, now=now)
    with write(found.tailnet_id) as change:
        invite = _usable(Invite.objects.select_for_update(of=("self",)).filter(pk=found.pk).first(), now)
        membership = _joined(change, invite, user)
        forget_mails(_mail_key(invite))
        invite.accepted_at, invite.accepted_by = now, user
        invite.save(update_fields=["accepted_at", "accepted_by"])
        _recorded(change, invite, Actor.person(user), "ACCEPT")
        return membership


def _joined(change: ChangeSet, invite: Invite, user: User) -> Membership:
    sender = Actor.person(invite.invited_by) if invite.invited_by is not None else Actor.command()
    place = Membership.objects.filter(user=user).first()
    if place is None:
        return add_member(tailnet=change.tailnet, user=user, role=invite.role, by=Actor.person(user))
    if place.status != Membership.Status.NEEDS_APPROVAL:
        raise Conflict("you are in this tailnet already" if place.is_active else "you are suspended there")
    return approve_member(membership=place, by=sender, role=invite.role)


def _usable(invite: Invite | None, now: datetime) -> Invite:
    """The invitation (needs its scope), if its link still works; raises :class:`Gone`."""
    if invite is None or invite.accepted_at is not None or invite.expires <= now:
        raise Gone("this invitation was used or has run out")
    if not may_still_invite(invite):
        raise Gone("whoever sent this invitation may no longer invite anybody")
    return invite


def may_still_invite(invite: Invite) -> bool:
    """Whether its sender could send it today; what a command made holds."""
    if invite.invited_by_id is None:
        return True
    sender = Membership.objects.filter(user=invite.invited_by_id).first()
    return can(sender, Capability.MANAGE_USERS) and sender is not None and outranks(sender, invite.role)


def _require_right(by: Actor, role: str) -> None:
    if role == Role.OWNER:
        raise Forbidden("ownership is transferred, not given")
    if role not in list(Role):
        raise Invalid(f"there is no role {role!r}")
    actor = acting_membership(by)
    if actor is None:
        return
    if not can(actor, Capability.MANAGE_USERS):
        raise Forbidden("your role does not include this")
    if not outranks(actor, role):
        raise Forbidden("this role ranks as high as your own")


def _open_row(invite: Invite) -> Invite:
    row = Invite.objects.filter(pk=invite.pk).first()
    if row is None:
        raise NotFound("this invitation was withdrawn")
    if row.accepted_at is not None:
        raise Conflict("this invitation was accepted already")
    return row


# --- the mail --------------------------------------------------------------------------------------------


def _sent(invite: Invite, secret: NewSecret, by: Actor) -> NewInvite:
    """The invitation with its link, its mail noted in the open transaction."""
    link = f"{settings.BASE_URL}/invite/{secret.text}"
    mailed = bool(invite.email) and settings.MAIL_IS_SET_UP and _may_mail()
    if mailed:
        with in_language_of(by):
            _note_mail(invite, secret, link, by)
    return NewInvite(invite, link, mailed)


def _may_mail() -> bool:
    """Whether this invitation, which the log has already, is among those that may go out by mail."""
    sent = AuditEvent.objects.filter(target_type=TARGET, action__in=("CREATE", "RENEW"))
    return full_until(sent, most=MAX_MAILED + 1, now=timezone.now()) is None


def _note_mail(invite: Invite, secret: NewSecret, link: str, by: Actor) -> None:
    words = {
        "sender": by.user.name if by.user is not None else "Trenza",
        "tailnet": invite.tailnet.title,
        "role": role_word(invite.role),
        "link": link,
        "days": LIFETIME.days,
    }
    note_mail(
        tailnet=invite.tailnet,
        key=_mail_key(invite),
        secret=secret,
        to=invite.email,
        subject=_("%(sender)s invites you to %(tailnet)s") % words,
        text=_(
            "%(sender)s invites you to the private network %(tailnet)s on Trenza, "
            "with the role %(role)s.\n\n"
            "Open this link to see the invitation and to join:\n\n%(link)s\n\n"
            "It works once and for %(days)d days. If you do not know %(sender)s, do nothing."
        )
        % words,
    )


def _mail_key(invite: Invite) -> str:
    return f"{MAIL_KEY}{invite.pk}-"


def when_mailed() -> dict[int, datetime]:
    """When the mails of the open scope's invitations went out, by the invitations' ids."""
    mails = Outbox.objects.filter(
        kind=Outbox.Kind.MAIL, idempotency_key__startswith=MAIL_KEY, delivered_at__isnull=False
    )
    sent = mails.order_by("delivered_at").values_list("idempotency_key", "delivered_at")
    return {int(str(key).split("-")[1]): moment for key, moment in sent if moment is not None}


def _recorded(change: ChangeSet, invite: Invite, by: Actor, action: str) -> None:
    change.upsert("invite", invite.pk)
    _audit(change, invite, by, action)


def _audit(change: ChangeSet, invite: Invite, by: Actor, action: str) -> None:
    audit.record(
        tailnet=change.tailnet,
        by=by,
        action=action,
        target_type=TARGET,
        target_id=invite.pk,
        target_name=invite.email,
        new={"role": invite.role},
    )
