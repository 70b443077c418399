"""``trenza debug``: a look inside, and what is done by hand only."""

from __future__ import annotations

import click

from client.cli.common import daemon, json_option, say, show_json


@click.group()
def debug() -> None:
    """Look inside the daemon."""


@debug.command()
@click.pass_context
def prefs(context: click.Context) -> None:
    """Show the preferences as the daemon keeps them."""
    show_json(daemon(context).get("prefs"))


@debug.command()
@click.pass_context
def netmap(context: click.Context) -> None:
    """Show the network map."""
    show_json(daemon(context).get("debug/netmap"))


@debug.command("derp-map")
@click.pass_context
def derp_map(context: click.Context) -> None:
    """Show the map of relays."""
    show_json(daemon(context).get("debug/derp-map"))


@debug.command("watch")
@click.pass_context
def watch(context: click.Context) -> None:
    """Show the daemon's notices as they come, until interrupted."""
    with daemon(context).watch() as notices:
        while True:
            show_json(notices.next(None))


@debug.command("sleep")
@click.argument("phase", type=click.Choice(["pre", "post"]))
@click.pass_context
def sleep(context: click.Context, phase: str) -> None:
    """Say that this host is about to sleep (pre), or has just woken (post), as systemd does."""
    daemon(context).post("sleep", {"Phase": phase})


@debug.command("rotate-keys")
@json_option
@click.pass_context
def rotate_keys(context: click.Context, as_json: bool) -> None:
    """Replace this node's key; its identity and addresses stay."""
    local = daemon(context)
    local.post("rotate-keys")
    key = local.get("status", peers="false")["Self"]["PublicKey"]
    if as_json:
        show_json({"PublicKey": key})
    else:
        say(f"new node key: {key}")
