"""``trenza version``."""

from __future__ import annotations

import click

from client.cli.common import daemon, json_option, say, show_json
from client.hostinfo import program_version


@click.command()
@click.option("--daemon", "with_daemon", is_flag=True, help="ask the running daemon for its version too")
@json_option
@click.pass_context
def version(context: click.Context, with_daemon: bool, as_json: bool) -> None:
    """Show the version of this program, and of the daemon."""
    own = program_version()
    running = str(daemon(context).get("version")["version"]) if with_daemon else ""
    if as_json:
        content = {"majorMinorPatch": own.partition("-")[0], "short": own, "long": own}
        show_json(content | ({"daemonLong": running} if running else {}))
    elif running:
        say(f"Client: {own}\nDaemon: {running}")
    else:
        say(own)
