"""``manage.py createauthkey TAILNET``: a key that lets machines join, printed once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from accounts.actors import Actor
from accounts.selectors import owner
from accounts.services.people import find_member
from accounts.tenancy import scope
from controlplane.management.jsoncommand import JsonCommand, parse_duration, require_tailnet
from nodes.describe import describe_auth_key
from nodes.services.authkeys import create_auth_key


class Command(JsonCommand):
    help = "Make an auth key; without --user and --tag its devices belong to the tailnet's owner."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tailnet")
        parser.add_argument("--user", metavar="EMAIL", help="whose devices they will be")
        parser.add_argument("--reusable", action="store_true", help="lets in more than one machine")
        parser.add_argument("--ephemeral", action="store_true", help="its devices go when they go offline")
        parser.add_argument("--preapproved", action="store_true", help="its devices need no approval")
        parser.add_argument("--tag", action="append", default=[], dest="tags", metavar="tag:x")
        parser.add_argument("--expiry", default="90d", help="how long the key lets machines in (default 90d)")
        parser.add_argument("--description", default="")

    def answer(self, *, tailnet: str, user: str | None, **options: Any) -> dict[str, Any]:
        found = require_tailnet(tailnet)
        with scope(tailnet=found):
            person = find_member(tailnet=found, email=user).user if user else owner()
            made = create_auth_key(
                tailnet=found,
                by=Actor.command(),
                user=person,
                reusable=options["reusable"],
                ephemeral=options["ephemeral"],
                preauthorized=options["preapproved"],
                tags=options["tags"],
                lifetime=parse_duration(options["expiry"]),
                description=options["description"],
            )
            return describe_auth_key(made.key, now=timezone.now(), secret=made.text)

    def words(self, value: Any) -> str:
        return str(value["key"])
