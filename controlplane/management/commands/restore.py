"""``manage.py restore FILE``: put a backup's database and keys in the place of the present ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from accounts.tenancy import each_tailnet
from controlplane.env import environment
from controlplane.management.backup import restore_backup
from controlplane.management.jsoncommand import JsonCommand
from nodes.models import Node


class Command(JsonCommand):
    help = "Replace the database and the server's keys with those of a backup."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path)

    def answer(self, *, file: Path, **options: Any) -> dict[str, Any]:
        backup, restart = restore_backup(file=file.absolute(), data=environment().data)
        counts = [Node.objects.count() for _ in each_tailnet()]
        return {
            "file": str(file),
            "created": backup.created,
            "tailnets": len(counts),
            "nodes": sum(counts),
            "restartNeeded": restart,
        }

    def words(self, value: Any) -> str:
        done = f"restored {value['tailnets']} tailnets with {value['nodes']} devices from {value['created']}"
        return f"{done}\nthe server's keys changed: restart it" if value["restartNeeded"] else done
