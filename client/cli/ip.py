"""``trenza ip``: tailnet addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from client.cli.common import daemon, json_option, say, short_name, show_json
from client.errors import ClientError, PeerNotFound


@click.command()
@click.argument("peer", required=False)
@click.option("-4", "only4", is_flag=True, help="IPv4 only")
@click.option("-6", "only6", is_flag=True, help="IPv6 only")
@click.option("-1", "only1", is_flag=True, help="one address only")
@json_option
@click.pass_context
def ip(
    context: click.Context, /, peer: str | None, *, only4: bool, only6: bool, only1: bool, as_json: bool
) -> None:
    """Show the tailnet addresses of this node, or of PEER."""
    if only4 + only6 + only1 > 1:
        raise click.UsageError("-4, -6 and -1 exclude one another")
    content = daemon(context).get("status")
    addresses = list(find(content, peer)["TailscaleIPs"] if peer else content["TailscaleIPs"])
    if not addresses:
        raise ClientError(f"no address yet (state {content['BackendState']}): trenza up first")
    chosen = [text for text in addresses if not ((only4 and ":" in text) or (only6 and ":" not in text))]
    if not chosen:
        raise ClientError("there is no address of that kind")
    shown = chosen[:1] if only1 else chosen
    if as_json:
        show_json(shown)
    else:
        say("\n".join(shown))


def find(content: Mapping[str, Any], text: str) -> Mapping[str, Any]:
    """This node or a peer, by name or address; raises ``PeerNotFound``."""
    wanted = text.rstrip(".").lower()
    nodes: list[Mapping[str, Any]] = [content["Self"], *content["Peer"].values()]
    for node in nodes:
        name = str(node["DNSName"]).rstrip(".").lower()
        short = short_name(node, content["MagicDNSSuffix"]).lower()
        if wanted in (name, short) or text in node.get("TailscaleIPs", []):
            return node
    raise PeerNotFound(f"no peer {text!r}: trenza status lists them")
