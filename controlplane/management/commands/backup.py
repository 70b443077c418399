"""``manage.py backup FILE``: the database and the server's keys in one file, while the server runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from controlplane.env import environment
from controlplane.management.backup import write_backup
from controlplane.management.jsoncommand import JsonCommand


class Command(JsonCommand):
    help = "Write the database and the server's keys to one file (0600). Keep it secret."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)

    def answer(self, *, file: Path, **options: Any) -> dict[str, Any]:
        backup = write_backup(file=file.absolute(), data=environment().data)
        size = file.stat().st_size
        return {"file": str(file), "bytes": size, "engine": backup.engine, "keys": list(backup.keys)}

    def words(self, value: Any) -> str:
        return f"wrote {value['file']} ({value['bytes']} bytes). It holds secrets: keep it safe."
