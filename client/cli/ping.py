"""``trenza ping``: ask a peer's daemon, and say by which path the answer came."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from client.cli.common import Duration, daemon, json_option, say, show_json
from client.errors import ClientError
from client.localapi.client import DaemonError

PAUSE_SECONDS = 1.0
LATE = "ping-timeout"


class NoAnswer(ClientError):
    """The pings did not do what was asked of them."""

    code = "no-answer"


@click.command()
@click.argument("target")
@click.option("-c", "count", type=click.IntRange(0), default=10, help="pings to send (0: without end)")
@click.option("--timeout", type=Duration(), default=5.0, help="how long to wait for each")
@click.option("--until-direct/--no-until-direct", default=True, help="stop once the path is direct")
@json_option
@click.pass_context
def ping(
    context: click.Context, /, target: str, *, count: int, timeout: float, until_direct: bool, as_json: bool
) -> None:
    """Ping TARGET (name or address) between the daemons, and show the path."""
    local, sent, heard, reason = daemon(context), 0, False, ""
    while True:
        sent += 1
        try:
            pong = local.post("ping", {"Target": target, "Timeout": timeout})
        except DaemonError as error:
            if error.code != LATE:
                raise
            pong = None
        heard = heard or pong is not None
        reason = str((pong or {}).get("RelayReason") or reason)
        show(pong, target, as_json=as_json)
        if pong is not None and (pong.get("IsLocalIP") or (until_direct and pong.get("Endpoint"))):
            return
        if sent == count:
            break
        time.sleep(PAUSE_SECONDS)
    if not heard:
        raise NoAnswer("no reply")
    if until_direct:
        raise NoAnswer("direct connection not established" + (f": {reason}" if reason else ""))


def show(pong: Mapping[str, Any] | None, target: str, *, as_json: bool) -> None:
    if as_json:
        show_json(pong if pong is not None else {"Err": "timed out"})
    elif pong is None:
        say(f'ping "{target}" timed out')
    else:
        say(describe(pong))


def describe(pong: Mapping[str, Any]) -> str:
    """One answer in the words of ``tailscale ping``."""
    if pong.get("IsLocalIP"):
        return f"{pong['IP']} is local Tailscale IP"
    via = pong.get("Endpoint") or f"DERP({pong['DERPRegionCode']})"
    return f"pong from {pong['NodeName']} ({pong['NodeIP']}) via {via} in {milliseconds(pong)}"


def milliseconds(pong: Mapping[str, Any]) -> str:
    return f"{round(float(pong['LatencySeconds']) * 1000)}ms"
