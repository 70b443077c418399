"""``trenza``: the command itself."""

from __future__ import annotations

import click

from client.cli.common import OneLineErrors
from client.cli.debug import debug
from client.cli.down import down, logout
from client.cli.file import file
from client.cli.ip import ip
from client.cli.netcheck import netcheck
from client.cli.ping import ping
from client.cli.settings import get, set_
from client.cli.status import status
from client.cli.up import login, up
from client.cli.version import version
from client.cli.whois import whoami, whois
from client.localapi.client import DEFAULT_SOCKET

VERBS = (
    up,
    down,
    login,
    logout,
    status,
    ping,
    netcheck,
    ip,
    version,
    whoami,
    whois,
    file,
    set_,
    get,
    debug,
)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--socket", default=DEFAULT_SOCKET, show_default=True, help="the daemon's Unix socket")
def trenza(socket: str) -> None:
    """The command line of Trenza, a mesh VPN. The daemon trenzad does the work."""


for verb in VERBS:
    trenza.add_command(verb)


def main() -> None:
    trenza(prog_name="trenza")


if __name__ == "__main__":
    main()
