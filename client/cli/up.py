"""``trenza up`` and ``trenza login``: come up, signing in first where that is needed."""

from __future__ import annotations

import base64
import contextlib
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import segno

from client.authkey import read_auth_key
from client.cli.approval import say_what_awaits_approval
from client.cli.common import Duration, daemon, say, show_json
from client.cli.options import (
    GoFlags,
    as_option,
    changes_of,
    defaults,
    exit_node_id,
    given,
    setting_options,
    values_of,
)
from client.errors import ClientError
from client.localapi.client import DaemonError, LocalClient, Notices

F = TypeVar("F", bound=Callable[..., Any])
QR_SCALE = 4


class UpFailed(ClientError):
    """The node did not come up."""

    code = "up-failed"


def up_options(command: F) -> F:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="print JSON"),
        click.option("--qr", is_flag=True, help="show a QR code of the address to visit"),
        click.option("--timeout", type=Duration(), default=0.0, help="how long to wait (0: for ever)"),
        click.option("--force-reauth", is_flag=True, help="sign in anew though this node is signed in"),
        click.option("--auth-key", "--authkey", help="key to join with, or file:PATH with one in it"),
        click.option("--login-server", help="address of the server"),
    ):
        command = option(command)
    return command


@click.command(cls=GoFlags)
@up_options
@setting_options
@click.option("--reset", is_flag=True, help="set what is not named here back to its default")
@click.pass_context
def up(context: click.Context, /, reset: bool, as_json: bool, **options: Any) -> None:
    """Connect to the tailnet, signing in if needed."""
    run(context, options, reset=reset, as_json=as_json)


@click.command(cls=GoFlags)
@up_options
@setting_options
@click.pass_context
def login(context: click.Context, /, as_json: bool, **options: Any) -> None:
    """Sign in to a tailnet with another account; trenza switch goes back to those that are here already."""
    local = daemon(context)
    before = local.post("profiles/new")["Before"]
    try:
        run(context, options | {"force_reauth": True}, reset=False, is_new=True, as_json=as_json)
    except DaemonError:  # the login is over, and nothing came of it
        with contextlib.suppress(DaemonError):
            local.post("profiles/switch", {"Profile": before})
        raise


def run(
    context: click.Context, options: dict[str, Any], *, reset: bool, as_json: bool, is_new: bool = False
) -> None:
    """``is_new``: an account that has no settings yet which could be forgotten."""
    local = daemon(context)
    named = given(options)
    if named.get("exit_node"):
        named["exit_node"] = exit_node_id(named["exit_node"], local.get("status"))
    prefs = local.get("prefs")
    before = values_of(prefs)
    if not reset and not is_new:
        refuse_forgetting(named, before)
    wanted = defaults() | named if reset else named
    changes = changes_of(wanted, before)
    if options["login_server"] is not None:
        changes["ControlURL"] = options["login_server"]
    request = {
        "Prefs": changes,
        "AuthKey": read_auth_key(options["auth_key"] or ""),
        "ForceReauth": options["force_reauth"],
    }
    Progress(local, show_qr=options["qr"], as_json=as_json).follow(request, options["timeout"])
    if not as_json:
        say_what_awaits_approval(local, wanted)


def refuse_forgetting(named: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Whoever names one setting must name all that are not default: ``up`` is the whole wish.

    Raises :class:`UpFailed` with the command that keeps them. Naming none keeps them all.
    """
    empty = defaults()
    forgotten = [name for name in empty if name not in named and before[name] != empty[name]]
    if not named or not forgotten:
        return
    kept = {name: before[name] for name in forgotten} | dict(named)
    words = " ".join(as_option(option, kept[option]) for option in empty if option in kept)
    raise UpFailed(
        "naming some settings sets the others back to their default; to keep them say: "
        f"trenza up {words} (or add --reset to set them back)"
    )


@dataclass
class Progress:
    """Follows the daemon's notices until the node is up, showing what a person must do."""

    local: LocalClient
    show_qr: bool
    as_json: bool
    _shown: str = ""
    _trouble: str = ""
    _missing: str = "see trenza status for what is missing"

    def follow(self, request: Mapping[str, Any], seconds: float) -> None:
        """Ask the daemon and wait ``seconds`` (0: for ever); raises :class:`UpFailed` when they are over."""
        try:
            with self.local.watch() as notices:
                notices.next(None)  # how it is before
                self.local.post("up", request)
                self._until_up(notices, time.monotonic() + seconds if seconds else None)
        except TimeoutError:
            raise UpFailed(f"not up after {seconds:.0f} s: {self._missing}") from None
        except DaemonError as error:
            self._say_json(Error=str(error))
            raise

    def _until_up(self, notices: Notices, deadline: float | None) -> None:
        while True:
            notice = notices.next(None if deadline is None else max(deadline - time.monotonic(), 0.01))
            if notice["Error"] is not None:
                raise DaemonError(notice["Error"]["Code"], notice["Error"]["Message"])
            if notice["LoginOpen"]:
                self._show_login(notice)
            elif notice["State"] == "Starting":
                self._show_trouble(notice)
            elif notice["State"] == "NeedsMachineAuth":
                self._show_approval(notice)
            elif notice["State"] == "Running":
                return self._succeed()

    def _show_trouble(self, notice: Mapping[str, Any]) -> None:
        """Why a node that is signed in does not come up; it goes on trying."""
        if notice["Health"] and not notice["Connected"]:
            self._missing = notice["Health"][0]
            if self._missing != self._trouble and not self.as_json:
                self._trouble = self._missing
                say(f"Waiting: {self._trouble}", err=True)

    def _show_login(self, notice: Mapping[str, Any]) -> None:
        url = notice["AuthURL"]
        if not url or url == self._shown:
            return
        self._shown = url
        self._missing = f"somebody has to sign in at {url}"
        if self.as_json:
            return self._say_json(AuthURL=url, QR=qr_data_url(url), BackendState=notice["State"])
        say(f"\nTo authenticate, visit:\n\n\t{url}\n", err=True)
        if self.show_qr:
            say(qr_text(url), err=True)
        return None

    def _show_approval(self, notice: Mapping[str, Any]) -> None:
        url = f"{notice['ControlURL']}/admin"
        self._missing = f"an administrator has to approve this machine at {url}"
        if url == self._shown:
            return
        self._shown = url
        if self.as_json:
            return self._say_json(BackendState=notice["State"])
        say(f"\nTo approve your machine, visit (as admin):\n\n\t{url}\n", err=True)
        return None

    def _succeed(self) -> None:
        if self.as_json:
            self._say_json(BackendState="Running")
        elif self._shown:
            say("Success.", err=True)

    def _say_json(self, **members: str) -> None:
        if self.as_json:
            show_json({name: value for name, value in members.items() if value})


def qr_text(url: str) -> str:
    """A QR code for a terminal, two modules a character."""
    out = io.StringIO()
    segno.make(url, error="l").terminal(out, compact=True)
    return out.getvalue()


def qr_data_url(url: str) -> str:
    out = io.BytesIO()
    segno.make(url).save(out, kind="png", scale=QR_SCALE)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
