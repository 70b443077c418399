"""Devices and people where an answer is about something else: who is meant, and no more."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from accounts.api.values import Closed, Text
from accounts.models import Tailnet, User
from nodes.models import Node
from nodes.names import fqdn


class DeviceBrief(Closed):
    """Which device."""

    id = Text(help_text="Its number, as text.")
    nodeId = Text(help_text="Its lasting name in the API.")
    name = Text(help_text="Its full name in the tailnet's DNS.")


class PersonBrief(Closed):
    """Which person."""

    id = Text(help_text="Their number, as text.")
    loginName = Text(help_text="The address that they sign in with.")
    displayName = Text(help_text="What they are called.")


def describe_briefly(node: Node, tailnet: Tailnet) -> dict[str, Any]:
    """A DeviceBrief."""
    name = fqdn(node.name, tailnet.name, settings.BASE_DOMAIN).rstrip(".")
    return {"id": str(node.pk), "nodeId": node.stable_id, "name": name}


def describe_person(user: User) -> dict[str, Any]:
    """A PersonBrief."""
    return {"id": str(user.pk), "loginName": user.login_name, "displayName": user.name}
