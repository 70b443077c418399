"""The settings as options of ``up`` and ``set``, and what each means among the preferences. Pure.

Names and defaults: tailscale cmd/tailscale/cli (up.go, set.go).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from client.errors import PrefsError
from client.prefixes import EXIT_ROUTES
from client.prefs import Prefs

F = TypeVar("F", bound=Callable[..., Any])
Values = dict[str, Any]  # by option, in the types of the command line; lists instead of commas

# Option, and the member of the preferences that holds its value as it is.
PLAIN = {
    "hostname": "Hostname",
    "advertise_tags": "AdvertiseTags",
    "shields_up": "ShieldsUp",
    "operator": "OperatorUser",
    "exit_node_allow_lan_access": "ExitNodeAllowLANAccess",
    "accept_routes": "RouteAll",
    "accept_dns": "CorpDNS",
}
LISTS = ("advertise_tags", "advertise_routes")
DEFAULT_ROUTES = [str(route) for route in EXIT_ROUTES]
# The members that options with a value of their own kind decide.
MEMBERS = {option: (member,) for option, member in PLAIN.items()} | {
    "exit_node": ("ExitNodeID", "ExitNodeIP"),
    "advertise_exit_node": ("AdvertiseRoutes",),
    "advertise_routes": ("AdvertiseRoutes",),
    "snat_subnet_routes": ("NoSNAT",),
}


FLAG_VALUE = re.compile(r"--([a-z-]+)=(true|false)")


class GoFlags(click.Command):
    """Also understands ``--accept-dns=false``, which scripts for tailscale say instead of --no-accept-dns."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {
            name
            for param in self.params
            if isinstance(param, click.Option) and param.is_flag and param.secondary_opts
            for name in param.opts
        }
        return super().parse_args(ctx, [_plain_flag(argument, flags) for argument in args])


def _plain_flag(argument: str, flags: set[str]) -> str:
    match = FLAG_VALUE.fullmatch(argument)
    if match is None or f"--{match[1]}" not in flags:
        return argument
    return f"--{match[1]}" if match[2] == "true" else f"--no-{match[1]}"


def setting_options(command: F) -> F:
    """The options that ``up``, ``login`` and ``set`` share; an option that is not given is ``None``."""

    def flag(name: str, words: str) -> Callable[[Any], Any]:
        return click.option(f"--{name}/--no-{name}", default=None, help=words)

    for option in (
        flag("accept-dns", "use the tailnet's DNS"),
        flag("snat-subnet-routes", "hide the tailnet's addresses from the networks that are advertised"),
        flag("accept-routes", "use the networks that other nodes advertise"),
        click.option("--advertise-routes", help="networks to offer the tailnet, separated by commas"),
        flag("advertise-exit-node", "offer to be an exit node"),
        flag("exit-node-allow-lan-access", "reach the local network though an exit node is used"),
        click.option("--exit-node", help="send all traffic through this node (name or IP; empty: none)"),
        click.option("--operator", help="user who may use this command without being root"),
        flag("shields-up", "let no connection in"),
        click.option("--advertise-tags", help="tags to ask for, separated by commas (tag:server,…)"),
        click.option("--hostname", help="name to use instead of the host's own"),
    ):
        command = option(command)
    return command


def given(options: Mapping[str, Any]) -> Values:
    """Those of the options that were named, lists read."""
    return {
        name: comma_list(options[name]) if name in LISTS else options[name]
        for name in MEMBERS
        if options.get(name) is not None
    }


def comma_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def values_of(prefs: Mapping[str, Any]) -> Values:
    """What each option would have to say to give these preferences."""
    routes = prefs["AdvertiseRoutes"]
    values: Values = {option: prefs[member] for option, member in PLAIN.items()}
    return values | {
        "exit_node": prefs["ExitNodeID"] or prefs["ExitNodeIP"],
        "advertise_exit_node": all(route in routes for route in DEFAULT_ROUTES),
        "advertise_routes": [route for route in routes if route not in DEFAULT_ROUTES],
        "snat_subnet_routes": not prefs["NoSNAT"],
    }


def defaults() -> Values:
    return values_of(Prefs().to_json())


def changes_of(named: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The members that ``named`` options change, where the other options are as in the values ``before``.

    Raises :class:`PrefsError` for the trap that hides in ``--advertise-routes``.
    """
    if set(DEFAULT_ROUTES) & set(named.get("advertise_routes", ())):
        raise PrefsError("a default route is no network to advertise: say --advertise-exit-node")
    values = dict(before) | dict(named)
    exit_node = values["exit_node"]
    everything: dict[str, Any] = {member: values[option] for option, member in PLAIN.items()} | {
        "ExitNodeID": "" if is_ip(exit_node) else exit_node,
        "ExitNodeIP": exit_node if is_ip(exit_node) else "",
        "AdvertiseRoutes": [
            *values["advertise_routes"],
            *(DEFAULT_ROUTES if values["advertise_exit_node"] else ()),
        ],
        "NoSNAT": not values["snat_subnet_routes"],
    }
    return {member: everything[member] for option in named for member in MEMBERS[option]}


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def as_option(option: str, value: Any) -> str:
    """``--name=value``, as a person would type it."""
    name = option.replace("_", "-")
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name}={','.join(value) if isinstance(value, list) else value}"


def exit_node_id(text: str, status: Mapping[str, Any]) -> str:
    """What names the exit node in the preferences: a stable ID, or the IP while no peer is known to have it.

    ``text`` is a name, an IP or a stable ID. Raises :class:`PrefsError` for a node that is none.
    """
    if not text:
        return ""
    wanted = text.strip().rstrip(".").lower()
    if is_ip(wanted) and wanted in (status["Self"].get("TailscaleIPs") or ()):
        raise PrefsError(f"{text} is this machine: it cannot be its own exit node")
    for peer in status["Peer"].values():
        name = peer["DNSName"].rstrip(".").lower()
        if text == peer["ID"] or wanted in (name, name.partition(".")[0], *peer["TailscaleIPs"]):
            if not peer["ExitNodeOption"]:
                raise PrefsError(f"{text} is no exit node, or is not approved: see trenza exit-node list")
            return str(peer["ID"])
    if is_ip(wanted):
        if status["BackendState"] == "Running":
            raise PrefsError(f"no node has the address {text}: see trenza exit-node list")
        return str(ipaddress.ip_address(wanted))
    raise PrefsError(f"there is no node {text!r}: see trenza exit-node list (before joining, give its IP)")
