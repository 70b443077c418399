"""Everything between a checkout and a server that can start: schema, translations, static files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

from controlplane.env import environment


def compile_messages(root: Path) -> int:
    """Compile every catalogue under ``root`` that is newer than its ``.mo``; returns how many.

    Babel does it, so the machine needs no gettext tools.
    """
    compiled = 0
    for source in root.glob("*/LC_MESSAGES/*.po"):
        target = source.with_suffix(".mo")
        if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
            continue
        with source.open("rb") as file:
            catalogue = read_po(file, locale=source.parent.parent.name)
        whole = target.with_suffix(f".{os.getpid()}.part")  # who reads while we write gets a whole one
        with whole.open("wb") as file:
            write_mo(file, catalogue)
        whole.replace(target)
        compiled += 1
    return compiled


def make_database_private(database: Mapping[str, Any]) -> None:
    """SQLite's file holds sessions: nobody else may read it, whatever DATA's mode; its neighbours follow."""
    if database["ENGINE"].endswith("sqlite3"):
        path = Path(database["NAME"])
        path.touch(mode=0o600)
        path.chmod(0o600)


class Command(BaseCommand):
    help = "Migrate the database, compile translations and collect static files."

    def handle(self, *args: Any, **options: Any) -> None:
        environment().data.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_database_private(settings.DATABASES["default"])
        call_command("migrate", interactive=False, verbosity=0)
        try:
            for root in settings.LOCALE_PATHS:
                compile_messages(Path(root))
        except OSError as error:  # the service's user may not write to the checkout
            self.stderr.write(f"translations stay as they are: {error}; run manage.py prepare as its owner")
        call_command("collectstatic", interactive=False, verbosity=0)
