"""``manage.py signinlink EMAIL``: a link that signs one person in once, within 15 minutes."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from accounts.actors import Actor
from accounts.describe import timestamp
from accounts.errors import Conflict, NotFound
from accounts.models import Membership, Tailnet, User
from accounts.roles import Role
from accounts.services.people import add_member, ensure_local_person, find_member
from accounts.services.signinlink import create_link
from accounts.services.tailnets import FIRST_TAILNET
from accounts.tenancy import memberships_of, scope
from controlplane.env import environment
from controlplane.management.jsoncommand import JsonCommand, require_tailnet


class Command(JsonCommand):
    help = "Print a one-time sign-in link; makes the person and their place in the tailnet when absent."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email")
        parser.add_argument(
            "--tailnet", help="which tailnet it opens (default: the person's, else the first)"
        )
        parser.add_argument("--role", default=Role.MEMBER.value, choices=[role.value for role in Role])

    def answer(self, *, email: str, tailnet: str | None, role: str, **options: Any) -> dict[str, str]:
        chosen = require_tailnet(tailnet) if tailnet else self._default_tailnet(email)
        user = self._person(chosen, email)
        add_member(tailnet=chosen, user=user, role=role, by=Actor.command())
        link = create_link(user=user, tailnet=chosen)
        return {"url": f"{environment().url}/sign-in/link/{link.token}", "expires": timestamp(link.expires)}

    def words(self, value: Any) -> str:
        return f"{value['url']}\nworks once, until {value['expires']}"

    def _default_tailnet(self, email: str) -> Tailnet:
        """The person's own tailnet, else the first one of the server."""
        for user in User.objects.filter(email__iexact=email.strip()).order_by("pk"):
            active = [one for one in memberships_of(user.pk) if one.status == Membership.Status.ACTIVE]
            if active:
                return active[0].tailnet
        first = Tailnet.objects.filter(name=FIRST_TAILNET).first() or Tailnet.objects.order_by("pk").first()
        if first is None:
            raise NotFound("there is no tailnet yet; make one with manage.py createtailnet")
        return first

    def _person(self, tailnet: Tailnet, email: str) -> User:
        """The tailnet's one member of this address, else a person that commands made, else a new one."""
        with scope(tailnet=tailnet):
            try:
                return find_member(tailnet=tailnet, email=email).user
            except (NotFound, Conflict):
                return ensure_local_person(email=email)
