"""``manage.py listnodes TAILNET``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from accounts.tenancy import scope
from controlplane.env import environment
from controlplane.management.jsoncommand import JsonCommand, require_tailnet
from nodes.describe import describe_device_with_state, what_is_around
from nodes.selectors import nodes

COLUMNS = ("id", "name", "ipv4", "user", "state", "online")


class Command(JsonCommand):
    help = "List a tailnet's devices."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tailnet")

    def answer(self, *, tailnet: str, **options: Any) -> list[dict[str, Any]]:
        found, now, base = require_tailnet(tailnet), timezone.now(), environment().base_domain
        with scope(tailnet=found):
            around = what_is_around(found, base_domain=base)
            return [
                describe_device_with_state(node, base_domain=base, now=now, around=around) for node in nodes()
            ]

    def words(self, value: Any) -> str:
        rows = [COLUMNS, *(self._row(device) for device in value)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        )
        return "\n".join(line.rstrip() for line in lines)

    def _row(self, device: dict[str, Any]) -> tuple[str, ...]:
        name = str(device["name"]).partition(".")[0]
        owner = ",".join(device.get("tags", [])) or device["user"]
        online = "online" if device["online"] else "offline"
        return (device["id"], name, device["addresses"][0], owner, device["state"], online)
