"""Tailnets that programs make: with an OAuth client, by which the program goes on."""

from __future__ import annotations

import re

from django.db import transaction

from accounts.actors import Actor
from accounts.credentials import random_text
from accounts.errors import Conflict
from accounts.models import Tailnet, User
from accounts.scopes import ALL
from accounts.services.tailnets import NameTaken, create_tailnet
from accounts.services.tokens import NewClient, create_oauth_client

MAX_BASE = 40  # characters of a name that are the title's
ATTEMPTS = 5
UNNAMED = "tailnet"


def found_tailnet(*, owner: User, title: str, by: Actor) -> tuple[Tailnet, NewClient]:
    """A tailnet named after its title, and a client that may do everything there.

    Raises as :func:`accounts.services.tailnets.create_tailnet` does.
    """
    with transaction.atomic():
        tailnet = _made(owner, title, by)
        client = create_oauth_client(tailnet=tailnet, by=by, scopes=[ALL], description="The first")
        return tailnet, client


def _made(owner: User, title: str, by: Actor) -> Tailnet:
    base = re.sub(r"[^a-z0-9]+", "-", title.lower())[:MAX_BASE].strip("-") or UNNAMED
    for attempt in range(ATTEMPTS):
        name = base if attempt == 0 else f"{base}-{random_text(4).lower()}"
        try:
            return create_tailnet(name=name, owner=owner, by=by, display_name=title)[0]
        except NameTaken:
            continue
    raise Conflict(f"there are many tailnets named {base}: choose another name")
