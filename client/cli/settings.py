"""``trenza set`` and ``trenza get``: preferences one by one."""

from __future__ import annotations

from typing import Any

import click

from client.cli.approval import say_what_awaits_approval
from client.cli.common import daemon, json_option, say, show_json
from client.cli.options import GoFlags, changes_of, exit_node_id, given, setting_options, values_of
from client.errors import ClientError


@click.command(name="set", cls=GoFlags)
@setting_options
@click.pass_context
def set_(context: click.Context, /, **options: Any) -> None:
    """Change the named settings and no others."""
    local, named = daemon(context), given(options)
    if not named:
        raise ClientError("nothing to set: name a setting, for example --hostname=NAME (trenza set --help)")
    if named.get("exit_node"):
        named["exit_node"] = exit_node_id(named["exit_node"], local.get("status"))
    local.patch("prefs", changes_of(named, values_of(local.get("prefs"))))
    say_what_awaits_approval(local, named)


@click.command()
@click.argument("name", required=False)
@json_option
@click.pass_context
def get(context: click.Context, name: str | None, as_json: bool) -> None:
    """Show the settings, or the one called NAME."""
    prefs = daemon(context).get("prefs")
    shown = values_of(prefs) | {"login_server": prefs["ControlURL"]}
    values = {option.replace("_", "-"): value for option, value in sorted(shown.items())}
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
