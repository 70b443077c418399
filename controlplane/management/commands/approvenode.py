"""``manage.py approvenode TAILNET NODE``."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from accounts.actors import Actor
from accounts.errors import NotFound
from accounts.tenancy import scope
from controlplane.env import environment
from controlplane.management.jsoncommand import JsonCommand, require_tailnet
from nodes.describe import describe_device_with_state
from nodes.selectors import find_node, nodes
from nodes.services.lifecycle import approve_node


class Command(JsonCommand):
    help = "Approve a device; a running server tells the others within a second."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tailnet")
        parser.add_argument("node", help="its id, nodeId, name, host name or address")

    def answer(self, *, tailnet: str, node: str, **options: Any) -> dict[str, Any]:
        found = require_tailnet(tailnet)
        with scope(tailnet=found):
            device = find_node(node)
            if device is None:
                raise NotFound(f"there is no device {node} in the tailnet {tailnet}")
            approve_node(node=device, by=Actor.command())
            now, base = timezone.now(), environment().base_domain
            return describe_device_with_state(nodes().get(pk=device.pk), base_domain=base, now=now)

    def words(self, value: Any) -> str:
        return f"approved {value['name']} ({value['addresses'][0]})"
