"""People, tailnets, nodes and keys for tests, made by the services that make them for real."""

from __future__ import annotations

import secrets
from typing import Any

from accounts.actors import Actor
from accounts.models import Membership, Tailnet, User
from accounts.roles import Role
from accounts.services.people import add_member, create_person
from accounts.services.tailnets import create_tailnet


def person(email: str = "") -> User:
    return create_person(email=email or f"{secrets.token_hex(4)}@example.com")


def tailnet(name: str = "", **settings: Any) -> tuple[Tailnet, User]:
    """A tailnet and its owner."""
    owner = person()
    made, _ = create_tailnet(name=name or f"t{secrets.token_hex(4)}", owner=owner, by=Actor.command())
    if settings:
        Tailnet.objects.filter(pk=made.pk).update(**settings)
        made.refresh_from_db()
    return made, owner


def member(of: Tailnet, role: str = Role.MEMBER) -> Membership:
    return add_member(tailnet=of, user=person(), role=role, by=Actor.command())
