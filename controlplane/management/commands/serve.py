"""``manage.py serve``; ``manage.py`` itself runs the supervisor without Django, this makes help list it."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from controlplane.supervisor import main


class Command(BaseCommand):
    help = "Run the web workers and the relay; restart what dies. SIGHUP replaces the workers."

    def run_from_argv(self, argv: list[str]) -> None:
        sys.exit(main(argv[2:]))

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(main([]))
