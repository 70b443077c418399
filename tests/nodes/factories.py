"""Machines, nodes and keys for tests, made by the services that make them for real."""

from __future__ import annotations

import secrets
from typing import Any

from accounts.actors import Actor
from accounts.models import Tailnet, User
from nodes.models import Node
from nodes.services.authkeys import create_auth_key
from nodes.services.enrolment import Machine, register_node
from wire.keys import MachinePublic, NodePublic


def machine_key() -> str:
    return str(MachinePublic(secrets.token_bytes(32)))


def node_key() -> str:
    return str(NodePublic(secrets.token_bytes(32)))


def machine(hostname: str = "box", **values: Any) -> Machine:
    given: dict[str, Any] = {
        "machine_key": machine_key(),
        "node_key": node_key(),
        "hostinfo": {"Hostname": hostname, "OS": "linux"},
        "capability_version": 130,
    }
    return Machine(**(given | values))


def node(tailnet: Tailnet, user: User | None = None, *, hostname: str = "box", **values: Any) -> Node:
    terms = {name: values.pop(name) for name in ("tags", "preapproved", "now") if name in values}
    return register_node(
        tailnet=tailnet, machine=machine(hostname, **values), user=user, by=Actor.command(), **terms
    )


def auth_key(tailnet: Tailnet, user: User | None = None, **values: Any) -> str:
    """The text of a new auth key."""
    return create_auth_key(tailnet=tailnet, by=Actor.command(), user=user, **values).text
