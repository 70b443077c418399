"""``trenza switch``: from one account of this device to another. ``trenza login`` adds one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from client.cli.common import daemon, json_option, say, show_json
from client.cli.status import align, not_running
from client.localapi.client import LocalClient

WAIT_SECONDS = 30.0
PAUSE_SECONDS = 0.2
UNDECIDED = ("NoState", "Starting")


class Accounts(click.Group):
    """``trenza switch NAME`` beside ``trenza switch remove NAME``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            return super().resolve_command(ctx, ["to", *args])
        return super().resolve_command(ctx, args)


@click.group(
    cls=Accounts, invoke_without_command=True, subcommand_metavar="ID|TAILNET|ACCOUNT | remove ACCOUNT"
)
@click.option("--list", "as_list", is_flag=True, help="list the accounts")
@json_option
@click.pass_context
def switch(context: click.Context, as_list: bool, as_json: bool) -> None:
    """Switch to another account of this device."""
    if as_list:
        profiles = daemon(context).get("profiles")
        if as_json:
            show_json(profiles)
        else:
            say(table(profiles))
        context.exit(0)
    if context.invoked_subcommand is None or as_json:
        raise click.UsageError("give an account, or --list (with --json)")


@switch.command(hidden=True)
@click.argument("account")
@click.pass_context
def to(context: click.Context, account: str) -> None:
    """Use ACCOUNT from now on."""
    local = daemon(context)
    if not local.post("profiles/switch", {"Profile": account})["Switched"]:
        return say(f'Already on account "{account}"')
    say(f'Switching to account "{account}"')
    return say(outcome(local))


@switch.command()
@click.argument("account")
@click.pass_context
def remove(context: click.Context, account: str) -> None:
    """Forget ACCOUNT, with its keys; its device stays in its tailnet until it is removed there."""
    daemon(context).post("profiles/remove", {"Profile": account})


def table(profiles: Sequence[dict[str, Any]]) -> str:
    rows = [["ID", "Tailnet", "Account"]]
    for profile in profiles:
        mark = "*" if profile["selected"] else ""
        rows.append([profile["id"], profile["tailnet"] or "-", (profile["account"] or "-") + mark])
    return align(rows)


def outcome(local: LocalClient) -> str:
    """How it is with the account now in use, in the words of ``tailscale switch``."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (content := local.get("status", peers="false"))["BackendState"] in UNDECIDED:
        if time.monotonic() > deadline:
            return "It is still starting: see trenza status."
        time.sleep(PAUSE_SECONDS)
    if content["BackendState"] == "NeedsLogin":
        return "Logged out.\nTo log in, run:\n  trenza up"
    return "Success." if content["BackendState"] == "Running" else not_running(content)
