"""``manage.py signinlink EMAIL``: a link that signs one person in once, within 15 minutes."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import write
from accounts.describe import timestamp
from accounts.errors import ApplicationError, Conflict, NotFound
from accounts.models import LOCAL_ISSUER, Invite, Membership, Tailnet, User
from accounts.roles import Role
from accounts.selectors import members, open_invites
from accounts.services.invites import revoke_invite
from accounts.services.people import (
    add_member,
    approve_member,
    check_email,
    ensure_local_person,
    find_member,
)
from accounts.services.signinlink import create_link
from accounts.services.tailnets import FIRST_TAILNET
from accounts.tenancy import memberships_of
from controlplane.env import environment
from controlplane.management.jsoncommand import JsonCommand, require_tailnet

Status = Membership.Status


class Command(JsonCommand):
    help = (
        "Print a one-time sign-in link for a member of a tailnet. With --create the person and their place "
        "in it are made when absent, and somebody who was invited or waits for approval is let in."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email")
        parser.add_argument(
            "--tailnet", help="which tailnet it opens (default: the person's, else the first)"
        )
        parser.add_argument("--create", action="store_true", help="let in whoever is not a member yet")
        parser.add_argument(
            "--role",
            choices=[role.value for role in Role],
            help="of whom --create lets in (default: the invitation's, else member)",
        )

    def answer(
        self, *, email: str, tailnet: str | None, create: bool, role: str | None, **options: Any
    ) -> dict[str, str]:
        email = check_email(email)
        chosen = require_tailnet(tailnet) if tailnet else self._default_tailnet(email)
        with write(chosen) as change:
            place = self._member(chosen, email)
            if place is None or place.status != Status.ACTIVE:
                if not create or (place is not None and place.status == Status.SUSPENDED):
                    raise self._refusal(chosen, email, place)
                place = self._let_in(change.tailnet, email, place, role)
            elif role not in (None, place.role):
                raise Conflict(f"{email} is in {chosen.name} already, as {place.role}: change it on /users")
            link = create_link(user=place.user, tailnet=chosen)
        url = f"{environment().url}/sign-in/link/{link.token}"
        return {"url": url, "expires": timestamp(link.expires)}

    def words(self, value: Any) -> str:
        return f"{value['url']}\nworks once, until {value['expires']}"

    def _default_tailnet(self, email: str) -> Tailnet:
        """A tailnet that the person is in, else the first one of the server."""
        for user in User.objects.filter(email__iexact=email).order_by("pk"):
            places = memberships_of(user.pk)
            if places:
                return min(places, key=lambda one: one.status != Status.ACTIVE).tailnet
        first = Tailnet.objects.filter(name=FIRST_TAILNET).first() or Tailnet.objects.order_by("pk").first()
        if first is None:
            raise NotFound("there is no tailnet yet; make one with manage.py createtailnet")
        return first

    def _member(self, tailnet: Tailnet, email: str) -> Membership | None:
        """The tailnet's member of this address; of several, the one whom a command made."""
        try:
            return find_member(tailnet=tailnet, email=email)
        except NotFound:
            return None
        except Conflict:
            made = members().filter(user__email__iexact=email, user__iss=LOCAL_ISSUER).first()
            if made is None:
                raise
            return made

    def _invite(self, email: str) -> Invite | None:
        return open_invites().filter(email__iexact=email, expires__gt=timezone.now()).first()

    def _refusal(self, tailnet: Tailnet, email: str, place: Membership | None) -> ApplicationError:
        """Why there is no link, and what to do."""
        if place is not None and place.status == Status.SUSPENDED:
            return Conflict(f"{email} is suspended in {tailnet.name}: restore them on /users first")
        if place is not None:
            return Conflict(
                f"{email} waits for approval in {tailnet.name}: approve them on /approvals, or add --create"
            )
        if self._invite(email) is not None:
            return Conflict(
                f"{email} is invited to {tailnet.name} and comes in by the invitation's link: send that "
                "again on /users, or add --create to let them in now"
            )
        return NotFound(
            f"nobody in the tailnet {tailnet.name} has the address {email}: add --create to give them a place"
        )

    def _let_in(self, tailnet: Tailnet, email: str, place: Membership | None, role: str | None) -> Membership:
        """Approve who waits, else give the person a place, which takes the place of their invitation."""
        by = Actor.command()
        if place is not None:
            return approve_member(membership=place, by=by, role=role)
        person = ensure_local_person(email=email)
        invite = self._invite(email)
        if invite is not None:
            revoke_invite(invite=invite, by=by)
            role = role or invite.role
        return add_member(tailnet=tailnet, user=person, role=role or Role.MEMBER, by=by)
