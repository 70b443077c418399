"""``trenza dns``: how names are found on this device, and a question to its own resolver."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from client.cli.common import daemon, json_option, say, show_json

HERE = "(answered here)"
HOSTS = "(as this host is set up)"


@click.group()
def dns() -> None:
    """How names are found on this device."""


@dns.command()
@json_option
@click.pass_context
def status(context: click.Context, *, as_json: bool) -> None:
    """Show what the server wants of DNS, and what holds here."""
    content = daemon(context).get("dns")
    if as_json:
        show_json(content)
    else:
        say("\n".join(describe(content)))


@dns.command()
@click.argument("name")
@click.argument("kind", metavar="[TYPE]", default="A")
@json_option
@click.pass_context
def query(context: click.Context, /, name: str, kind: str, *, as_json: bool) -> None:
    """Ask this device's resolver for NAME, as its programs do. TYPE is A, AAAA, PTR, TXT, …"""
    content = daemon(context).post("dns-query", {"Name": name, "Type": kind.upper()})
    if as_json:
        show_json(content)
    else:
        say("\n".join(_answers(content)))
    if content["ResponseCode"] != "NOERROR":
        context.exit(1)


def describe(content: Mapping[str, Any]) -> list[str]:
    """The status in lines."""
    config, resolver = content["Config"], content["Resolver"]
    if not config:
        return ["There is no network map yet: trenza up first."]
    return [
        f"DNS of the tailnet: {_acceptance(content, resolver)}",
        f"MagicDNS: {_magic(content)}",
        "",
        "Resolvers for everything else:",
        *_listed(_default(config, resolver)),
        "",
        "Split DNS:",
        *_listed(f"{name} -> {', '.join(to) or HERE}" for name, to in _shown_routes(resolver)),
        "",
        "Search domains:",
        *_listed(resolver.get("Search", [])),
        "",
        "Extra records:",
        *_listed(_record(record) for record in config.get("ExtraRecords", [])),
        *(["", f"Trouble: {resolver['Trouble']}"] if resolver.get("Trouble") else []),
    ]


def _acceptance(content: Mapping[str, Any], resolver: Mapping[str, Any]) -> str:
    if not content["AcceptDNS"]:
        return "not used on this device (trenza set --accept-dns=true uses it)"
    if not content["Running"]:
        return "not in use now, the tunnel is down"
    manager = resolver.get("Manager")
    return f"used, through {manager}" if manager else "accepted; there is nothing to install"


def _magic(content: Mapping[str, Any]) -> str:
    if not content["MagicDNS"]:
        return "off in this tailnet"
    return f"on, this device is {str(content['DNSName']).rstrip('.')}"


def _default(config: Mapping[str, Any], resolver: Mapping[str, Any]) -> list[str]:
    default = resolver.get("Default")
    if default is None:
        return [f"{address} {HOSTS}" for address in resolver.get("Host", [])] or [HOSTS]
    return list(default) or ["none: an exit node is wanted, and nobody there can be asked"]


def _shown_routes(resolver: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The routes without the 65 reverse zones of the tailnet's own addresses."""
    routes = resolver.get("Routes", {})
    return [(name, to) for name, to in routes.items() if to or not name.endswith(".arpa")]


def _record(record: Mapping[str, Any]) -> str:
    return f"{record.get('Name', '')} {record.get('Type') or 'A/AAAA'} {record.get('Value', '')}"


def _listed(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines] or ["  (none)"]


def _answers(content: Mapping[str, Any]) -> list[str]:
    head = f"{content['Name']} {content['QueryType']}: {content['ResponseCode']} ({content['AnsweredBy']})"
    rows = [f"  {one['Name']} {one['TTL']} {one['Type']} {one['Body']}" for one in content["Answers"]]
    return [head, *rows]
