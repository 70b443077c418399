"""``trenza file``: files to and from one's other devices (Taildrop)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import click

from client.cli.clock import utc_now
from client.cli.common import Duration, daemon, first_ip, say
from client.cli.ip import find
from client.cli.status import last_seen
from client.errors import ClientError
from client.localapi.client import LocalClient

PIECE_BYTES = 64 * 1024
SNIFF_BYTES = 4 * 1024 * 1024
WAIT_SECONDS = 3600
CALL_SECONDS = WAIT_SECONDS + 60.0
LOOP_PAUSE_SECONDS = 5.0
MAX_ERRORS = 100
MAX_NUMBER = 100
UNITS = ("", "Ki", "Mi", "Gi")
RESTART_LINE = "\r\x1b[K"


class FileError(ClientError):
    """A file of ours cannot be read or written."""

    code = "file"


@click.group()
def file() -> None:
    """Send or receive files."""


# --- cp --------------------------------------------------------------------------------------------------


@file.command()
@click.argument("arguments", nargs=-1, metavar="FILES... TARGET:")
@click.option("--name", default="", help='name to send it under, useful when the file is "-" (stdin)')
@click.option("-v", "--verbose", is_flag=True, help="say what is sent")
@click.option("--targets", is_flag=True, help="list the devices that files can be sent to")
@click.option(
    "--update-interval", type=Duration(), default=0.25, help="how often to show progress (0: never)"
)
@click.pass_context
def cp(
    context: click.Context,
    /,
    arguments: tuple[str, ...],
    *,
    name: str,
    verbose: bool,
    targets: bool,
    update_interval: float,
) -> None:
    """Copy files to a device: its name or address with a colon behind. "-" is standard input."""
    local = daemon(context)
    if targets:
        if arguments:
            raise click.UsageError("--targets takes no files")
        return say("\n".join(map(describe_target, local.get("file-targets"))))
    if len(arguments) < 2:
        raise click.UsageError("trenza file cp FILES... TARGET:")
    *files, target = arguments
    if len(files) > 1 and (name or "-" in files):
        raise click.UsageError("--name and - (standard input) go with one file only")
    peer = find(local.get("status"), target_name(target))
    if not peer["Online"]:
        say(f"# warning: {target} is reportedly offline; trying anyway", err=True)
    for text in files:
        Sending(local, str(peer["ID"]), update_interval).send(text, name, verbose=verbose)
    return None


def target_name(text: str) -> str:
    """What stands before the colon; an IPv6 address in brackets. Raises ``UsageError``."""
    if not text.endswith(":"):
        raise click.UsageError("the last argument is the target and ends in a colon")
    name = text[:-1]
    bracketed = name.startswith("[") and name.endswith("]")
    if (":" in name) != bracketed:
        raise click.UsageError(f"an IPv6 address is written as [{name.strip('[]')}]:")
    return name[1:-1] if bracketed else name


def describe_target(target: Mapping[str, Any]) -> str:
    node = target["Node"]
    address = first_ip({"TailscaleIPs": [text.partition("/")[0] for text in node["Addresses"]]})
    detail = {True: "", False: "\toffline"}.get(node.get("Online"), "\tunknown-status")
    if detail and node.get("LastSeen"):
        detail += last_seen(node["LastSeen"], utc_now()).replace(",", ";", 1)
    return f"{address}\t{str(node['Name']).partition('.')[0]}{detail}"


class Sending:
    """One file after another to the device ``stable_id``."""

    def __init__(self, local: LocalClient, stable_id: str, interval: float) -> None:
        self._local = local
        self._stable_id = stable_id
        self._interval = interval if sys.stderr.isatty() else 0.0

    def send(self, text: str, name: str, *, verbose: bool) -> None:
        if text == "-":
            stdin = sys.stdin.buffer
            begun = stdin.read(SNIFF_BYTES)
            return self._put(name or "stdin" + extension(begun), stdin, None, begun, verbose=verbose)
        try:
            if os.path.isdir(text):
                raise FileError(f"{text} is a directory: pack it first (tar), or send its files")
            with open(text, "rb") as source:
                size = os.fstat(source.fileno()).st_size
                return self._put(name or os.path.basename(text), source, size, b"", verbose=verbose)
        except OSError as error:
            raise FileError(f"cannot read {text}: {error.strerror or error}") from error

    def _put(self, name: str, source: BinaryIO, size: int | None, begun: bytes, *, verbose: bool) -> None:
        if verbose:
            say(f"sending {name!r} to {self._stable_id} ...", err=True)
        pieces = self._shown(name, pieces_of(source, size, begun), size)
        self._local.put(f"file-put/{self._stable_id}/{quote(name, safe='')}", pieces, size)
        if verbose:
            say(f"sent {name!r}", err=True)

    def _shown(self, name: str, pieces: Iterator[bytes], size: int | None) -> Iterator[bytes]:
        """The pieces; on a terminal a line says how far they are."""
        if not self._interval:
            yield from pieces
            return
        begun = shown = time.monotonic()
        sent = 0
        for piece in pieces:
            yield piece
            sent += len(piece)
            if (now := time.monotonic()) - shown >= self._interval:
                shown = now
                say_progress(progress(name, sent, size, now - begun))
        say_progress(progress(name, sent, size, time.monotonic() - begun) + "\n")


def pieces_of(source: BinaryIO, size: int | None, begun: bytes) -> Iterator[bytes]:
    """What is ``begun``, and the rest; of a file that grows no more than ``size``."""
    if begun:
        yield begun
    left = size
    while left != 0 and (piece := source.read(PIECE_BYTES if left is None else min(left, PIECE_BYTES))):
        left = None if left is None else left - len(piece)
        yield piece
    if left:
        raise FileError("the file became shorter while it was sent")


def extension(begun: bytes) -> str:
    """For something without a name: whether it is text, as far as one sees."""
    if len(begun) == SNIFF_BYTES:
        return ""
    try:
        begun.decode()
    except UnicodeDecodeError:
        return ""
    return ".txt"


def say_progress(line: str) -> None:
    click.echo(RESTART_LINE + line, err=True, nl=False)


def progress(name: str, sent: int, size: int | None, seconds: float) -> str:
    rate = sent / seconds if seconds > 0 else 0.0
    shown = name if len(name) <= 36 else name[:35] + "…"
    line = f"{shown:<36}    {amount(sent, 'B'):>10}    {amount(rate, 'B/s'):>12}"
    if size is None:
        return line
    share = 100.0 * sent / size if size else 100.0
    left = int((size - sent) / rate) if rate else 0
    return f"{line}    {share:6.2f}%    ETA {left // 3600:02d}:{left // 60 % 60:02d}:{left % 60:02d}"


def amount(value: float, unit: str) -> str:
    for prefix in UNITS:
        if value < 1024:
            return f"{value:.2f}{prefix}{unit}"
        value /= 1024
    return f"{value:.2f}Ti{unit}"


# --- get -------------------------------------------------------------------------------------------------


@file.command()
@click.argument("directory")
@click.option("--wait", is_flag=True, help="wait for a file when there is none")
@click.option("--loop", is_flag=True, help="receive files as they come, without end")
@click.option("-v", "--verbose", is_flag=True, help="say what is moved")
@click.option(
    "--conflict",
    type=click.Choice(["skip", "overwrite", "rename"], case_sensitive=False),
    default="skip",
    show_default=True,
    help="what to do when the directory has a file of this name",
)
@click.pass_context
def get(
    context: click.Context, /, directory: str, *, wait: bool, loop: bool, verbose: bool, conflict: str
) -> None:
    """Move files that came into DIRECTORY; /dev/null deletes them."""
    local = daemon(context)
    if directory == "/dev/null":
        if wait or loop:
            raise click.UsageError("--wait and --loop do not go with /dev/null")
        return wipe(local, verbose=verbose)
    if not os.path.isdir(directory):
        raise FileError(f"{directory!r} is not a directory")
    receiving = Receiving(local, Path(directory), conflict, verbose=verbose)
    while True:
        errors = receiving.batch(wait=wait or loop)
        if not loop and errors:
            for error in errors[:-1]:
                say(str(error))
            raise errors[-1]
        if not loop:
            return None
        for error in errors:
            say(str(error))
        if errors:  # whatever it was will be so again
            time.sleep(LOOP_PAUSE_SECONDS)


def wipe(local: LocalClient, *, verbose: bool) -> None:
    names = [str(item["Name"]) for item in local.get("files/")]
    for name in names:
        local.delete(f"files/{quote(name, safe='')}")
    if verbose:
        say(f"deleted {len(names)} files")


class Receiving:
    def __init__(self, local: LocalClient, folder: Path, conflict: str, *, verbose: bool) -> None:
        self._local = local
        self._folder = folder
        self._conflict = conflict
        self._verbose = verbose

    def batch(self, *, wait: bool) -> list[ClientError]:
        """Move all that is there, waiting for the first; returns what went wrong."""
        names, errors, moved = self._names(wait=wait), list[ClientError](), 0
        for name in names:
            if len(errors) > MAX_ERRORS:
                errors.append(FileError("too many errors: the other files stay"))
                break
            try:
                self._receive(name)
                moved += 1
            except ClientError as error:
                errors.append(error)
        if not moved and names:
            errors.append(FileError(f"moved {moved}/{len(names)} files"))
        elif self._verbose:
            say(f"moved {moved}/{len(names)} files")
        return errors

    def _names(self, *, wait: bool) -> list[str]:
        while not (found := self._local.get("files/")) and wait:
            if self._verbose:
                say("waiting for file...")
            self._local.get("files/", seconds=CALL_SECONDS, waitsec=str(WAIT_SECONDS))
        return [str(item["Name"]) for item in found]

    def _receive(self, name: str) -> None:
        path = f"files/{quote(name, safe='')}"
        try:
            with self._local.download(path) as download:
                place, target = self._open(name)
                try:
                    with target:
                        for piece in download.pieces():
                            target.write(piece)
                except BaseException:  # half a file is none
                    place.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise FileError(f"cannot write {name!r}: {error.strerror or error}") from error
        if self._verbose:
            say(f"wrote {name} as {place} ({download.size} bytes)")
        self._local.delete(path)

    def _open(self, name: str) -> tuple[Path, BinaryIO]:
        """A new file for ``name``: an existing one is replaced only where that is asked for."""
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise FileError(f"{name!r} is no file name")
        place = self._folder / name
        if self._conflict == "overwrite":
            place.unlink(missing_ok=True)
        for number in range(MAX_NUMBER):
            candidate = place if not number else numbered(place, number)
            try:
                return candidate, candidate.open("xb")
            except FileExistsError:
                if self._conflict != "rename":
                    raise FileError(f"refusing to overwrite file: {place} exists") from None
        raise FileError(f"{place} and {MAX_NUMBER} like it exist")


def numbered(place: Path, number: int) -> Path:
    return place.with_name(f"{place.stem} ({number}){place.suffix}")
