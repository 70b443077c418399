"""Commands that people and scripts use: words by default, one JSON value with ``--json``.

A refusal is one line on stderr (``{"message": …}`` with ``--json``) and exit status 1.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from accounts.errors import ApplicationError, Invalid, NotFound
from accounts.models import Tailnet
from accounts.selectors import tailnet_by_name

DURATION = re.compile(r"(\d{1,6})([smhdw])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: str) -> timedelta:
    """``90d``, ``12h``, ``30m``, ``45s`` or ``2w``; raises :class:`Invalid`."""
    match = DURATION.fullmatch(text)
    if match is None:
        raise Invalid(f"{text!r} is not a duration; write for example 90d, 12h or 30m")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def require_tailnet(name: str) -> Tailnet:
    """The tailnet of this name, or a refusal that names those there are."""
    tailnet = tailnet_by_name(name)
    if tailnet is None:
        names = ", ".join(Tailnet.objects.order_by("name").values_list("name", flat=True)[:10])
        raise NotFound(
            f"there is no tailnet {name}; there are: {names}" if names else f"there is no tailnet {name}"
        )
    return tailnet


class JsonCommand(BaseCommand):
    """Subclasses give :meth:`answer` (the JSON value) and :meth:`words` (what a person reads)."""

    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON value")
        return parser

    def answer(self, *args: Any, **options: Any) -> Any:
        """Do it and return the JSON value; raises ``ApplicationError`` to refuse."""
        raise NotImplementedError

    def words(self, value: Any) -> str:
        """The value as a person reads it."""
        return str(value)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            value = self.answer(**options)
        except ApplicationError as error:
            message = str(error)
            self.stderr.write(json.dumps({"message": message}) if options["as_json"] else f"Error: {message}")
            sys.exit(1)
        self.stdout.write(json.dumps(value, ensure_ascii=False) if options["as_json"] else self.words(value))
