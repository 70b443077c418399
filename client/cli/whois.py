"""``trenza whois`` and ``trenza whoami``: the machine and user behind a tailnet address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from client.cli.common import daemon, first_ip, json_option, say, show_json
from client.errors import ClientError


@click.command()
@click.argument("address")
@json_option
@click.pass_context
def whois(context: click.Context, address: str, as_json: bool) -> None:
    """Show which machine and user ADDRESS (IP, IP:port or name) belongs to."""
    show(daemon(context).get("whois", addr=address), as_json=as_json)


@click.command()
@json_option
@click.pass_context
def whoami(context: click.Context, as_json: bool) -> None:
    """Show which machine and user this node is."""
    local = daemon(context)
    own = first_ip(local.get("status", peers="false"))
    if not own:
        raise ClientError("this node has no address yet: trenza up first")
    show(local.get("whois", addr=own), as_json=as_json)


def show(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(found)
    else:
        say(describe(found))


def describe(found: Mapping[str, Any]) -> str:
    """In the words of ``tailscale whois``."""
    node, user = found["Node"], found["UserProfile"]
    lines = [
        "Machine:",
        f"  Name:          {str(node['Name']).rstrip('.')}",
        f"  ID:            {node['StableID']}",
        f"  Addresses:     [{' '.join(node['Addresses'])}]",
    ]
    if node.get("Tags"):
        lines.append(f"  Tags:          {', '.join(node['Tags'])}")
    else:
        lines += ["User:", f"  Name:          {user['LoginName']}", f"  ID:            {user['ID']}"]
    if found["CapMap"]:
        lines += ["Capabilities:", *(f"  - {name}" for name in sorted(found["CapMap"]))]
    return "\n".join(lines)
