"""What a start prepares and prints: the first tailnet, and a sign-in link while there is no other way in."""

from __future__ import annotations

from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.core.management.base import BaseCommand

from accounts.models import Membership, Tailnet, User
from accounts.roles import Role
from accounts.services.signinlink import create_link
from accounts.services.tailnets import first_start
from accounts.tenancy import scope
from controlplane.env import environment


class Command(BaseCommand):
    help = "Make the first tailnet and its owner when there is none; print a one-time sign-in link."

    def handle(self, *args: Any, **options: Any) -> None:
        env = environment()
        made = first_start(owner_email=env.owner)
        tailnet, owner = made or _first_owner()
        if env.google_client_id or env.oidc_client_id:
            self.stdout.write(f"Sign in: {env.url}/sign-in")
            if owner is None or SocialAccount.objects.filter(user=owner).exists():
                return
        if owner is not None:
            link = create_link(user=owner, tailnet=tailnet)
            self.stdout.write(
                f"Sign in once as {owner.email} (within 15 minutes): {env.url}/sign-in/link/{link.token}"
            )


def _first_owner() -> tuple[Tailnet | None, User | None]:
    """The owner of the oldest tailnet."""
    tailnet = Tailnet.objects.order_by("pk").first()
    if tailnet is None:
        return None, None
    with scope(tailnet=tailnet):
        member = Membership.objects.select_related("user").filter(role=Role.OWNER).order_by("pk").first()
        return tailnet, member.user if member else None
