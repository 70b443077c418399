"""``trenza whois`` and ``trenza whoami``: the machine and user behind a tailnet address."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from client.cli.common import daemon, first_ip, json_option, say, show_json
from client.errors import ClientError

DISPLAY_NAME = "tailnet-display-name"
OWN_ADDRESSES = 2  # the first of AllowedIPs
MIN_WIDTH, PADDING = 10, 5


@click.command()
@click.argument("address")
@click.option(
    "--proto", type=click.Choice(["", "tcp", "udp"]), default="", help="protocol of a port behind it"
)
@json_option
@click.pass_context
def whois(context: click.Context, /, address: str, *, proto: str, as_json: bool) -> None:
    """Show which machine and user ADDRESS (IP, IP:port or name) belongs to."""
    show(daemon(context).get("whois", addr=address, proto=proto), as_json=as_json)


@click.command()
@json_option
@click.pass_context
def whoami(context: click.Context, as_json: bool) -> None:
    """Show which machine and user this node is."""
    local = daemon(context)
    status = local.get("status", peers="false")
    own = first_ip(status)
    if not own:
        raise ClientError("this node has no address yet: trenza up first")
    show(local.get("whois", addr=own) | {"CurrentTailnet": status["CurrentTailnet"]}, as_json=as_json)


def show(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(found)
    else:
        say(describe(found))


def describe(found: Mapping[str, Any]) -> str:
    """In the words of ``tailscale whois``."""
    node, user, tailnet = found["Node"], found["UserProfile"], found.get("CurrentTailnet")
    machine = {
        "Name": str(node["Name"]).rstrip("."),
        "ID": node["StableID"],
        "Addresses": f"[{' '.join(node['Addresses'])}]",
    }
    if routes := (node.get("AllowedIPs") or [])[OWN_ADDRESSES:]:
        machine["AllowedIPs"] = f"[{' '.join(routes)}]"
    if node.get("Tags"):
        machine["Tags"] = ", ".join(node["Tags"])
    lines = ["Machine:", *rows(machine)]
    if not node.get("Tags"):
        lines += ["User:", *rows({"Name": user["LoginName"], "ID": user["ID"]})]
    if tailnet:
        name = ((node.get("CapMap") or {}).get(DISPLAY_NAME) or [""])[0] or tailnet["Name"]
        lines += ["Tailnet:", *rows({"Name": name, "MagicDNS Suffix": tailnet["MagicDNSSuffix"]})]
    if found["CapMap"]:
        lines += ["Capabilities:", *capabilities(found["CapMap"])]
    return "\n".join(lines)


def rows(members: Mapping[str, Any]) -> Iterator[str]:
    """Names and values in two columns."""
    width = max(MIN_WIDTH, max(map(len, members)) + len("  :") + PADDING)
    return (f"{f'  {name}:':<{width}}{value}" for name, value in members.items())


def capabilities(granted: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    for name, values in sorted(granted.items()):
        if not values:
            yield f"  - {name}"
            continue
        text = json.dumps(values, indent=2, ensure_ascii=False).replace("\n", "\n      ")
        yield f"  - {name}:"
        yield f"      {text}"
