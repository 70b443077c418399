"""Manual pages and shell completion, made from the command lines themselves.

``python -m client.manual SHARE`` writes them under a ``share`` folder (``/usr/share``, ``/usr/local/share``),
where ``man``, bash, zsh and fish look: the Debian package when it is built, the install script where it runs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from client.cli.__main__ import trenza
from client.daemon import make_parser
from client.hostinfo import program_version

NAME = "trenza"
# Where each shell looks, under share/.
COMPLETIONS: dict[type[ShellComplete], str] = {
    BashComplete: f"bash-completion/completions/{NAME}",
    ZshComplete: f"zsh/site-functions/_{NAME}",
    FishComplete: f"fish/vendor_completions.d/{NAME}.fish",
}
FILES = (
    (
        "/etc/trenza/client.env",
        "settings of the service: TRENZA_CONTROL_URL, TRENZA_AUTH_KEY, TRENZA_ADVERTISE_TAGS",
    ),
    ("/var/lib/trenza", "keys and preferences"),
    ("/run/trenza/trenzad.sock", "the socket through which trenza speaks to trenzad"),
)
Entry = tuple[str, str]  # a term and what it means; a heading and its roff


# --- roff ------------------------------------------------------------------------------------------------


def roff(text: str) -> str:
    """``text`` as roff shows it literally. Source: groff(7), Escape Sequences."""
    escaped = text.replace("\\", "\\(rs").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub(r"^\.", r"\\&.", escaped, flags=re.MULTILINE)


def entries(items: Iterable[Entry]) -> str:
    """A list of terms, each with what it means."""
    return "\n".join(f".TP\n\\fB{roff(term)}\\fR\n{roff(meaning)}" for term, meaning in items)


def page(name: str, section: int, summary: str, parts: Iterable[Entry]) -> str:
    """A manual page; parts without text are left out."""
    title = f'.TH "{roff(name.upper())}" "{section}" "" "Trenza {roff(program_version())}" "Trenza"'
    named = f".SH NAME\n{roff(name)} \\- {roff(summary.partition('. ')[0].rstrip('.'))}"
    return "\n".join([title, named, *(f".SH {heading}\n{text}" for heading, text in parts if text), ""])


# --- trenza ----------------------------------------------------------------------------------------------


def contexts(context: click.Context) -> Iterator[click.Context]:
    """A command and all below it, parents first."""
    yield context
    for child in _below(context.command):
        yield from contexts(click.Context(child, context, info_name=child.name))


def command_page(context: click.Context) -> tuple[str, str]:
    """File name and text of one command's page."""
    command, name = context.command, _page_name(context)
    parameters = command.get_params(context)
    options = (one.get_help_record(context) for one in parameters if isinstance(one, click.Option))
    usage = " ".join(command.collect_usage_pieces(context))
    also = [_page_name(context.parent) + "(1)"] if context.parent else []
    also += [f"{name}-{child.name}(1)" for child in _below(command)] + ["trenzad(8)"]
    parts = (
        ("SYNOPSIS", f"\\fB{roff(context.command_path)}\\fR {roff(usage)}"),
        ("DESCRIPTION", "\n.PP\n".join(roff(text) for text in _paragraphs(command.help or ""))),
        ("COMMANDS", entries((child.name or "", _summary(child)) for child in _below(command))),
        ("OPTIONS", entries(record for record in options if record)),
        ("SEE ALSO", ", ".join(map(roff, also))),
    )
    return f"{name}.1", page(name, 1, _summary(command), parts)


def _below(command: click.Command) -> list[click.Command]:
    children = command.commands.values() if isinstance(command, click.Group) else ()
    return sorted((one for one in children if not one.hidden), key=lambda one: one.name or "")


def _page_name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _summary(command: click.Command) -> str:
    return next(iter(_paragraphs(command.help or "")), command.name or "")


def _paragraphs(text: str) -> list[str]:
    """Click's own marks (``\\f``: the end, ``\\b``: keep the lines) are no text."""
    shown = text.partition("\f")[0].replace("\b", "")
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", shown) if part.strip()]


# --- trenzad ---------------------------------------------------------------------------------------------


def daemon_page(parser: argparse.ArgumentParser) -> str:
    """The page of ``trenzad``."""
    options = ((_option(action), action.help or "") for action in parser._actions)
    parts = (
        ("SYNOPSIS", f"\\fB{roff(parser.prog)}\\fR [OPTIONS]"),
        ("DESCRIPTION", f"{roff(parser.description or '')}\n.PP\n{roff(parser.epilog or '')}"),
        ("OPTIONS", entries(options)),
        ("FILES", entries(FILES)),
        ("SEE ALSO", "trenza(1)"),
    )
    return page(parser.prog, 8, parser.description or "", parts)


def _option(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return f"{', '.join(action.option_strings)}{value}"


# --- files -----------------------------------------------------------------------------------------------


def files() -> dict[str, str]:
    """Every file, by its place under ``share/``."""
    found = {f"man/man8/{make_parser().prog}.8": daemon_page(make_parser())}
    for context in contexts(click.Context(trenza, info_name=NAME)):
        name, text = command_page(context)
        found[f"man/man1/{name}"] = text
    for shell, place in COMPLETIONS.items():
        found[place] = shell(trenza, {}, NAME, f"_{NAME.upper()}_COMPLETE").source()
    return found


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m client.manual SHARE-FOLDER")
    for name, text in files().items():
        place = Path(sys.argv[1], name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
