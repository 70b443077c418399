"""``trenza bugreport``: a mark in the daemon's log, to be shared with who helps."""

from __future__ import annotations

import click

from client.cli.common import daemon, say


@click.command()
@click.argument("note", default="")
@click.option("--diagnose", is_flag=True, help="log the paths to all peers too")
@click.option("--record", is_flag=True, help="make a second mark once the trouble has been shown")
@click.pass_context
def bugreport(context: click.Context, /, note: str, *, diagnose: bool, record: bool) -> None:
    """Print an identifier that marks this moment in the daemon's log, with NOTE beside it."""
    local, request = daemon(context), {"Note": note, "Diagnose": diagnose}
    say(str(local.post("bugreport", request)["Marker"]))
    if record:
        click.prompt(
            "Recording started; please reproduce your issue and then press Enter...",
            default="",
            show_default=False,
            prompt_suffix="",
            err=True,
        )
        say(str(local.post("bugreport", request)["Marker"]))
        say("Please provide both bugreport markers above.")
