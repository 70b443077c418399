"""``trenza status``: this node and its peers, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from client.cli.clock import utc_now
from client.cli.common import daemon, first_ip, json_option, say, short_name, show_json
from wire.control import parse_time

CELL_GAP = 2
NOT_SHOWN = {
    "Stopped": "Trenza is stopped.",
    "NeedsMachineAuth": "Machine is not yet approved by tailnet admin.",
    "NoState": "Trenza is starting.",
}


@click.command()
@json_option
@click.option("--active", is_flag=True, help="only peers with sessions now")
@click.option("--self/--no-self", "own", default=True, help="show this machine too")
@click.option("--peers", type=click.BOOL, default=True, help="show peers")
@click.pass_context
def status(context: click.Context, as_json: bool, active: bool, own: bool, peers: bool) -> None:
    """Show the state of this node and of its connections."""
    content = daemon(context).get("status", peers="true" if peers else "false")
    if active:
        content["Peer"] = {key: peer for key, peer in content["Peer"].items() if peer["Active"]}
    if as_json:
        show_json(content)
        return
    if trouble := not_running(content):
        if content["Health"] and content["BackendState"] in ("Starting", "NoState", "NeedsLogin"):
            say(health_block(content["Health"]))
        say(trouble)
        context.exit(1)
    say(table(content, own=own, now=utc_now()))
    if (content.get("ExitNodeStatus") or {}).get("ByAdmin"):
        say("\n# An administrator chose the exit node (trenza set --exit-node= undoes it).")
    if reasons := relayed(content):
        say("\n" + "\n".join(["# Relayed:", *(f"#     - {text}" for text in reasons)]))
    if content["Health"]:
        say("\n" + health_block(content["Health"]))


def not_running(content: Mapping[str, Any]) -> str:
    """Why there is no table to show; "" when there is one."""
    state = content["BackendState"]
    if state == "NeedsLogin":
        return "Logged out." + (f"\nLog in at: {content['AuthURL']}" if content["AuthURL"] else "")
    if state == "NeedsMachineAuth":
        return f"{NOT_SHOWN[state]}\nTo approve it, visit (as admin): {content['Control']['URL']}/admin"
    return NOT_SHOWN.get(state, "")


def table(content: Mapping[str, Any], *, own: bool, now: datetime) -> str:
    """The lines of the table, columns aligned. Pure."""
    rows = [row(content["Self"], content, "-")] if own else []
    peers = sorted(content["Peer"].values(), key=lambda peer: short_name(peer, content["MagicDNSSuffix"]))
    rows += [row(peer, content, connection(peer, now)) for peer in peers]
    return align(rows)


def row(node: Mapping[str, Any], content: Mapping[str, Any], state: str) -> list[str]:
    name = short_name(node, content["MagicDNSSuffix"])
    return [first_ip(node), name, owner(node, content["User"]), str(node.get("OS", "")), state]


def owner(node: Mapping[str, Any], users: Mapping[str, Any]) -> str:
    if node.get("Tags"):
        return "tagged-devices"
    login = str((users.get(str(node.get("UserID"))) or {}).get("LoginName", ""))
    return login.partition("@")[0] + "@" if "@" in login else login or "-"


def connection(peer: Mapping[str, Any], now: datetime) -> str:
    """How a peer is reached, in the words of ``tailscale status``."""
    traffic = bool(peer["TxBytes"] or peer["RxBytes"])
    offline = "" if peer["Online"] else "; offline" + last_seen(peer["LastSeen"], now)
    role = exit_role(peer)
    if peer["Active"]:
        path = f"direct {peer['CurAddr']}" if peer["CurAddr"] else f'relay "{peer["Relay"]}"'
        text = f"active; {role + '; ' if role else ''}{path}{offline}"
    elif role:
        text = f"idle; {role}{offline}"
    elif traffic:
        text = f"idle{offline}"
    else:
        text = offline.removeprefix("; ") or "-"
    if traffic:
        text += f", tx {peer['TxBytes']} rx {peer['RxBytes']}"
    return text + ("; key expired" if peer["Expired"] else "")


def exit_role(peer: Mapping[str, Any]) -> str:
    """Whether a peer is the exit node in use, or might be."""
    if peer.get("ExitNode"):
        return "exit node"
    return "offers exit node" if peer.get("ExitNodeOption") else ""


def relayed(content: Mapping[str, Any]) -> list[str]:
    """Why peers with sessions now are not reached directly, by name."""
    suffix = content["MagicDNSSuffix"]
    peers = sorted(content["Peer"].values(), key=lambda peer: short_name(peer, suffix))
    return [
        f"{short_name(peer, suffix)}: {peer['RelayReason']}"
        for peer in peers
        if peer["Active"] and peer.get("RelayReason")
    ]


def last_seen(text: str, now: datetime) -> str:
    moment = parse_time(text)
    if moment is None:
        return ""
    ago = max(now - moment.astimezone(UTC), timedelta())
    minutes = int(ago.total_seconds() // 60)
    if minutes < 1:
        return ", last seen just now"
    if minutes < 60:
        return f", last seen {minutes}m ago"
    return f", last seen {minutes // 60}h ago" if minutes < 48 * 60 else f", last seen {minutes // 1440}d ago"


def align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    lines = (
        "".join(cell.ljust(width + CELL_GAP) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in rows
    )
    return "\n".join(lines)


def health_block(health: Sequence[str]) -> str:
    return "# Health check:\n" + "\n".join(f"#     - {text}" for text in health)
