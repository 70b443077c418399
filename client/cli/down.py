"""``trenza down`` and ``trenza logout``."""

from __future__ import annotations

import click

from client.cli.common import daemon, say


@click.command()
@click.pass_context
def down(context: click.Context) -> None:
    """Disconnect from the tailnet, staying signed in."""
    daemon(context).post("down")


@click.command()
@click.pass_context
def logout(context: click.Context) -> None:
    """Disconnect and end this node's key: it must sign in again to come back."""
    if warning := daemon(context).post("logout").get("Warning"):
        say(f"Warning: {warning}", err=True)
