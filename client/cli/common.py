"""What the verbs share: the daemon's socket, output, durations, and errors in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from client.errors import ClientError
from client.localapi.client import LocalClient

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
F = TypeVar("F", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """``500ms``, ``5s``, ``1m30s``; a bare number means seconds. Gives seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value)
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        parts = DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{text!r} is no duration: write it like 5s or 1m30s", param, ctx)
        return sum(float(number) * UNITS[unit] for number, unit in parts)


def daemon(context: click.Context) -> LocalClient:
    """The daemon behind ``--socket``."""
    return LocalClient(context.find_root().params["socket"])


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="print JSON")(command)


def say(text: str, *, err: bool = False) -> None:
    """Print for people. Names come from servers and peers: none of them may steer the terminal."""
    click.echo("".join(map(_harmless, text)), err=err)


def _harmless(character: str) -> str:
    return character if character.isprintable() or character in "\n\t" else "\ufffd"


def show_json(content: Any) -> None:
    click.echo(json.dumps(content, indent=2))


def first_ip(node: Mapping[str, Any]) -> str:
    addresses = node.get("TailscaleIPs") or []
    return str(addresses[0]) if addresses else ""


def short_name(node: Mapping[str, Any], suffix: str) -> str:
    """A node's name without the tailnet's suffix; its host name in quotes when it has none."""
    name = str(node.get("DNSName", "")).rstrip(".").removesuffix(f".{suffix}" if suffix else "")
    return name or json.dumps(str(node.get("HostName", "")))


class OneLineErrors(click.Group):
    """Ends with status 1 and one line for whatever is the user's or the daemon's trouble."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ClientError as error:
            say(f"trenza: {' '.join(str(error).split())}", err=True)
            ctx.exit(1)
        except BrokenPipeError:
            ctx.exit(1)
