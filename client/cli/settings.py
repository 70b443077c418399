"""``trenza set`` and ``trenza get``: preferences one by one."""

from __future__ import annotations

from typing import Any

import click

from client.cli.common import daemon, json_option, say, show_json
from client.cli.up import SETTINGS, setting_options, tag_list
from client.errors import ClientError

READABLE = {option.replace("_", "-"): member for option, member in SETTINGS.items()}
READABLE["login-server"] = "ControlURL"


@click.command(name="set")
@setting_options
@click.pass_context
def set_(context: click.Context, /, **options: Any) -> None:
    """Change the named settings and no others."""
    options["advertise_tags"] = tag_list(options["advertise_tags"])
    changes = {SETTINGS[name]: value for name, value in options.items() if value is not None}
    if not changes:
        raise ClientError("nothing to set: name a setting, for example --hostname=NAME (trenza set --help)")
    daemon(context).patch("prefs", changes)


@click.command()
@click.argument("name", required=False)
@json_option
@click.pass_context
def get(context: click.Context, name: str | None, as_json: bool) -> None:
    """Show the settings, or the one called NAME."""
    prefs = daemon(context).get("prefs")
    values = {option: prefs[member] for option, member in sorted(READABLE.items())}
    if name is not None and name != "all":
        if name not in values:
            raise ClientError(f"there is no setting {name!r}: {', '.join(values)}")
        return show_json(values[name]) if as_json else say(as_text(values[name]))
    if as_json:
        return show_json(values)
    width = max(map(len, values))
    return say("\n".join(f"{option:<{width}}  {as_text(value)}" for option, value in values.items()))


def as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, list) else str(value)
