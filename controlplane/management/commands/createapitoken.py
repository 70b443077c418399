"""``manage.py createapitoken TAILNET --user EMAIL``: a token for the public API, printed once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from accounts.actors import Actor
from accounts.describe import describe_api_token
from accounts.services.people import find_member
from accounts.services.tokens import create_api_token
from accounts.tenancy import scope
from controlplane.management.jsoncommand import JsonCommand, parse_duration, require_tailnet


class Command(JsonCommand):
    help = "Make an API token that acts as a member of the tailnet."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tailnet")
        parser.add_argument("--user", required=True, metavar="EMAIL")
        parser.add_argument("--scope", action="append", default=[], dest="scopes", help="default: all")
        parser.add_argument("--expiry", default="90d")
        parser.add_argument("--description", default="")

    def answer(self, *, tailnet: str, user: str, scopes: list[str], **options: Any) -> dict[str, Any]:
        found = require_tailnet(tailnet)
        with scope(tailnet=found):
            made = create_api_token(
                tailnet=found,
                user=find_member(tailnet=found, email=user).user,
                by=Actor.command(),
                scopes=scopes or ["all"],
                description=options["description"],
                lifetime=parse_duration(options["expiry"]),
            )
            return describe_api_token(made.token, now=timezone.now(), secret=made.text)

    def words(self, value: Any) -> str:
        return str(value["key"])
