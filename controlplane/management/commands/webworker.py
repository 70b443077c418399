"""One web worker, started by the supervisor on a socket it inherits."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from controlplane.env import UNUSABLE, EnvironmentProblem


class Command(BaseCommand):
    help = "Run one web worker on an inherited listening socket (started by manage.py serve)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--fd", type=int, required=True, help="the listening socket")
        parser.add_argument(
            "--lifeline", type=int, required=True, help="a pipe that closes when the parent dies"
        )
        parser.add_argument("--ready", type=int, required=True, help="a pipe that gets one byte when ready")

    def handle(self, *args: Any, **options: Any) -> None:
        from controlplane.asgi import run_worker
        from controlplane.services.serverkeys import check_fingerprints

        try:
            check_fingerprints()
        except EnvironmentProblem as problem:
            raise CommandError(str(problem), returncode=UNUSABLE) from problem
        except DatabaseError as error:
            raise CommandError(f"cannot read the database: {error}; is it up, and prepared?") from error
        run_worker(fd=options["fd"], lifeline=options["lifeline"], ready=options["ready"])
