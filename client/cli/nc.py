"""``trenza nc``: standard input and output connected to a port of a device, by the daemon."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading

import click

from client.cli.common import daemon

PIECE_BYTES = 64 * 1024


@click.command()
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@click.pass_context
def nc(context: click.Context, host: str, port: int) -> None:
    """Connect to PORT of HOST, and pass on standard input and output."""
    with daemon(context).dial(host, port) as (sock, receive):
        threading.Thread(target=send_all, args=(sys.stdin.fileno(), sock), daemon=True).start()
        with contextlib.suppress(ConnectionResetError):
            while piece := receive():
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()


def send_all(source: int, sock: socket.socket) -> None:
    """Everything up to the end, which the other side learns of."""
    with contextlib.suppress(OSError):  # the other side has ended
        while piece := os.read(source, PIECE_BYTES):
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
