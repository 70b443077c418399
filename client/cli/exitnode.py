"""``trenza exit-node list|suggest``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from client.cli.common import daemon, first_ip, json_option, say, show_json
from client.cli.status import align
from client.errors import ClientError

HEADER = ["IP", "HOSTNAME", "COUNTRY", "CITY", "STATUS"]


@click.group(name="exit-node")
def exit_node() -> None:
    """Show the tailnet's exit nodes, or have one suggested."""


@exit_node.command(name="list")
@json_option
@click.pass_context
def list_(context: click.Context, as_json: bool) -> None:
    """Show the nodes that may be used with --exit-node."""
    content = daemon(context).get("status")
    nodes = exit_nodes(content)
    if as_json:
        return show_json(nodes)
    if not nodes:
        raise ClientError("there are no exit nodes: one offers itself with trenza set --advertise-exit-node")
    say(align([HEADER, *(row(node) for node in nodes)]))
    return say("\n# To use one: trenza set --exit-node=HOSTNAME; to use none: trenza set --exit-node=")


@exit_node.command()
@json_option
@click.pass_context
def suggest(context: click.Context, as_json: bool) -> None:
    """Suggest the exit node that is nearest."""
    found = daemon(context).get("suggest-exit-node")
    if as_json:
        return show_json(found)
    name = str(found["Name"]).rstrip(".")
    return say(
        f"Suggested exit node: {name}.\n"
        f"To accept this suggestion, use: trenza set --exit-node={name.partition('.')[0]}"
    )


def exit_nodes(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The peers of a status that may be used, and the one that is though it may not, by name. Pure."""
    found = [peer for peer in content["Peer"].values() if peer["ExitNodeOption"] or peer["ExitNode"]]
    return sorted(found, key=lambda peer: str(peer["DNSName"]))


def row(peer: Mapping[str, Any]) -> list[str]:
    place = peer.get("Location") or {}
    words = [
        *(["selected"] if peer["ExitNode"] else []),
        *([] if peer["ExitNodeOption"] else ["not approved"]),
        *([] if peer["Online"] else ["offline"]),
    ]
    name = str(peer["DNSName"]).rstrip(".") or str(peer["HostName"])
    return [
        first_ip(peer),
        name,
        place.get("Country") or "-",
        place.get("City") or "-",
        " but ".join(words[:2]) or "-",
    ]
