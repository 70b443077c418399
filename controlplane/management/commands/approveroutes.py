"""``manage.py approveroutes TAILNET NODE [PREFIX …]``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from accounts.actors import Actor
from accounts.errors import NotFound
from accounts.tenancy import scope
from controlplane.management.jsoncommand import JsonCommand, require_tailnet
from nodes.models import Route
from nodes.selectors import find_node
from nodes.services.routes import set_approved_routes


class Command(JsonCommand):
    help = "Approve exactly these of the networks that a device offers (default: all of them)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tailnet")
        parser.add_argument("node", help="its id, nodeId, name, host name or address")
        parser.add_argument("prefix", nargs="*", help="0.0.0.0/0 stands for being an exit node")
        parser.add_argument("--none", action="store_true", help="approve none of them any more")

    def answer(
        self, *, tailnet: str, node: str, prefix: list[str], none: bool, **options: Any
    ) -> dict[str, Any]:
        found = require_tailnet(tailnet)
        with scope(tailnet=found):
            device = find_node(node)
            if device is None:
                raise NotFound(f"there is no device {node} in the tailnet {tailnet}")
            offered = [route.prefix for route in Route.objects.filter(node=device)]
            wanted = [] if none else (prefix or offered)
            routes = set_approved_routes(node=device, prefixes=wanted, by=Actor.command())
            return {
                "name": device.name,
                "approved": [route.prefix for route in routes if route.approved_at is not None],
                "waiting": [route.prefix for route in routes if route.approved_at is None],
            }

    def words(self, value: Any) -> str:
        approved = ", ".join(value["approved"]) or "nothing"
        waiting = f"; waiting: {', '.join(value['waiting'])}" if value["waiting"] else ""
        return f"{value['name']}: approved {approved}{waiting}"
