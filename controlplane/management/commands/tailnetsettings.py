"""``manage.py tailnetsettings TAILNET [NAME=VALUE…]``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.db.models import BooleanField, PositiveSmallIntegerField

from accounts.actors import Actor
from accounts.errors import Invalid
from accounts.models import Tailnet
from accounts.services.tailnets import SETTINGS, update_settings
from controlplane.management.jsoncommand import JsonCommand, require_tailnet

ON, OFF, NONE = {"on", "true", "yes"}, {"off", "false", "no"}, {"", "default", "none"}


class Command(JsonCommand):
    help = "Show a tailnet's settings, or change some: rotation_days=30 auto_renew=on google_domain=none"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tailnet")
        parser.add_argument("changes", nargs="*", metavar="NAME=VALUE")

    def answer(self, *, tailnet: str, changes: list[str], **options: Any) -> dict[str, Any]:
        found = require_tailnet(tailnet)
        if changes:
            found = update_settings(tailnet=found, by=Actor.command(), **dict(map(read_change, changes)))
        return {name: getattr(found, name) for name in SETTINGS} | {
            "rotates_after_days": found.rotates_after_days
        }

    def words(self, value: Any) -> str:
        return "\n".join(f"{name}={'default' if one is None else one}" for name, one in value.items())


def read_change(text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` as the setting's kind of value; raises :class:`Invalid`."""
    name, given, word = text.partition("=")
    if not given or name not in SETTINGS:
        raise Invalid(f"{text!r} is no change: NAME=VALUE, with a NAME of {', '.join(SETTINGS)}")
    field = Tailnet._meta.get_field(name)
    if word.lower() in NONE and getattr(field, "null", False):
        return name, None
    if isinstance(field, BooleanField):
        if word.lower() not in ON | OFF:
            raise Invalid(f"{name} is on or off, not {word!r}")
        return name, word.lower() in ON
    if isinstance(field, PositiveSmallIntegerField):
        if not (word.isascii() and word.isdigit()):
            raise Invalid(f"{name} is a number of days, not {word!r}")
        return name, int(word)
    return name, word
