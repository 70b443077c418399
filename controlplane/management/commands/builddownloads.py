"""``manage.py builddownloads``: what the install script needs, under DATA/download."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from controlplane.env import environment
from controlplane.services.downloads import BuildFailed, build


class Command(BaseCommand):
    help = "Build the client's wheel and fetch the wheels it needs, for the install script under /download/."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            built = build(environment().data)
        except BuildFailed as error:
            raise CommandError(f"cannot build the client's wheel: {error}") from error
        if built.problem:
            self.stderr.write(
                f"cannot fetch what the client depends on; machines will take it from PyPI: {built.problem}"
            )
        if built.fresh and options["verbosity"] > 0:
            self.stdout.write(f"/download/ has {built.wheel} and {built.dependencies} other wheels")
