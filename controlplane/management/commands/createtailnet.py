"""``manage.py createtailnet NAME --owner EMAIL``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.db import transaction

from accounts.actors import Actor
from accounts.services.people import ensure_local_person
from accounts.services.tailnets import create_tailnet
from controlplane.management.jsoncommand import JsonCommand


class Command(JsonCommand):
    help = "Make a tailnet and its owner."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="a DNS label, part of every device's name")
        parser.add_argument("--owner", required=True, metavar="EMAIL")
        parser.add_argument("--display-name", default="")

    def answer(self, *, name: str, owner: str, display_name: str, **options: Any) -> dict[str, str]:
        with transaction.atomic():
            person = ensure_local_person(email=owner)
            tailnet, _ = create_tailnet(
                name=name, owner=person, by=Actor.command(), display_name=display_name
            )
        return {"id": str(tailnet.pk), "name": tailnet.name}

    def words(self, value: Any) -> str:
        return f"made tailnet {value['name']} (id {value['id']})"
