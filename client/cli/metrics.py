"""``trenza metrics``: what the daemon counts, in Prometheus' text format."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from client.cli.common import daemon
from client.errors import ClientError
from client.localapi.client import LocalClient

FILE_MODE = 0o644


class CannotWrite(ClientError):
    """The file of metrics cannot be written."""

    code = "cannot-write"


@click.group(invoke_without_command=True)
@click.pass_context
def metrics(context: click.Context) -> None:
    """Show the daemon's metrics."""
    if context.invoked_subcommand is None:
        click.echo(fetch(daemon(context)), nl=False)


@metrics.command("print")
@click.pass_context
def print_(context: click.Context) -> None:
    """Print the metrics in Prometheus' text format."""
    click.echo(fetch(daemon(context)), nl=False)


@metrics.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_context
def write(context: click.Context, path: Path) -> None:
    """Write the metrics to PATH, for the node exporter's textfile collector."""
    text = fetch(daemon(context))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(text)
        temporary.chmod(FILE_MODE)
        os.replace(temporary, path)  # who reads it finds the old or the new one whole
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CannotWrite(f"cannot write {path}: {error.strerror or error}") from error


def fetch(local: LocalClient) -> bytes:
    with local.download("metrics") as download:
        return b"".join(download.pieces())
