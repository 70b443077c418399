"""``trenza``: the command itself."""

from __future__ import annotations

import os

import click

from client.cli.bugreport import bugreport
from client.cli.common import OneLineErrors
from client.cli.debug import debug
from client.cli.dns import dns
from client.cli.down import down, logout
from client.cli.exitnode import exit_node
from client.cli.file import file
from client.cli.ip import ip
from client.cli.metrics import metrics
from client.cli.nc import nc
from client.cli.netcheck import netcheck
from client.cli.ping import ping
from client.cli.settings import get, set_
from client.cli.ssh import ssh
from client.cli.status import status
from client.cli.switch import switch
from client.cli.up import login, up
from client.cli.version import version
from client.cli.wait import wait
from client.cli.whois import whoami, whois
from client.places import SYSTEM_SOCKET, find_socket

VERBS = (
    up,
    down,
    login,
    logout,
    status,
    ping,
    netcheck,
    ip,
    exit_node,
    dns,
    version,
    whoami,
    whois,
    file,
    nc,
    ssh,
    wait,
    metrics,
    switch,
    bugreport,
    set_,
    get,
    debug,
)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    default=lambda: str(find_socket(os.environ, os.geteuid())),
    show_default=f"your own trenzad's, else {SYSTEM_SOCKET}",
    help="the daemon's Unix socket",
)
def trenza(socket: str) -> None:
    """The command line of Trenza, a mesh VPN. The daemon trenzad does the work."""


for verb in VERBS:
    trenza.add_command(verb)


def main() -> None:
    trenza(prog_name="trenza")


if __name__ == "__main__":
    main()
