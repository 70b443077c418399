"""What the user wants of this node: typed, validated, with the names that ``tailscale`` gives them in JSON.

Source: tailscale ipn/prefs.go.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self
from urllib.parse import urlsplit

from client.errors import PrefsError
from client.prefixes import EXIT_ROUTES, advertisable

MAX_HOSTNAME = 253
MAX_TAGS = 128
MAX_URL = 2048
MAX_ROUTES = 256
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
TAG = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]{0,62}")
STABLE_ID = re.compile(r"[A-Za-z0-9_-]{0,64}")
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")


def normal_url(text: str) -> str:
    """A control server's address as it is kept: scheme, host, port, no path. Raises :class:`PrefsError`."""
    wrong = PrefsError(f"{text!r} is no server address: it looks like https://trenza.example.com")
    if not text:
        return ""
    if len(text) > MAX_URL or not text.isprintable():
        raise wrong
    if "://" not in text:
        raise PrefsError(f"{text!r} lacks http:// or https:// in front")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https"):
        raise PrefsError(f"{text!r} must begin with http:// or https://")
    if not host or " " in host or port == 0 or parts.username is not None or parts.query or parts.fragment:
        raise wrong
    if parts.path not in ("", "/"):
        raise PrefsError(
            f"{text!r} has a path: give the server's address alone, {parts.scheme}://{parts.netloc}"
        )
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _url(value: Any) -> str:
    return normal_url(_text(value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PrefsError("a text is expected")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise PrefsError("true or false is expected")
    return value


def _hostname(value: Any) -> str:
    text = _text(value)
    if len(text) > MAX_HOSTNAME or (text and not all(LABEL.fullmatch(part) for part in text.split("."))):
        raise PrefsError(f"{text!r} is no host name: letters, digits and hyphens only")
    return text


def _tags(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_TAGS:
        raise PrefsError(f"a list of at most {MAX_TAGS} tags is expected")
    for tag in value:
        if not TAG.fullmatch(_text(tag)):
            raise PrefsError(f"{tag!r} is no tag: it looks like tag:server (letters, digits and hyphens)")
    return tuple(value)


def _user(value: Any) -> str:
    text = _text(value)
    if text and not USER.fullmatch(text):
        raise PrefsError(f"{text!r} is no user name")
    return text


def _routes(value: Any) -> tuple[str, ...]:
    """Prefixes to advertise, in one order; an exit node's two default routes come together or not at all."""
    if not isinstance(value, list | tuple) or len(value) > MAX_ROUTES:
        raise PrefsError(f"a list of at most {MAX_ROUTES} prefixes is expected")
    networks = {advertisable(_text(text)) for text in value}
    defaults = networks & set(EXIT_ROUTES)
    if len(defaults) == 1:
        (given,) = defaults
        (other,) = set(EXIT_ROUTES) - defaults
        raise PrefsError(f"{given} is advertised without {other}: use --advertise-exit-node, it gives both")
    ordered = sorted(networks, key=lambda net: (net.version, int(net.network_address), net.prefixlen))
    return tuple(map(str, ordered))


def _stable_id(value: Any) -> str:
    text = _text(value)
    if not STABLE_ID.fullmatch(text):
        raise PrefsError(f"{text[:80]!r} is no node's stable ID")
    return text


def _ip(value: Any) -> str:
    text = _text(value)
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        raise PrefsError(f"{text[:80]!r} is no IP address") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefs:
    """``hostname`` "" = the host's own; ``operator`` may use the command line without being root.

    The exit node is named by its stable ID, or by an address of it as long as no netmap has told the ID;
    ``exit_node_by_admin``: not the user but the server's panel chose it. ``advertise_routes`` holds both
    default routes of an exit node, too. ``no_snat``: what comes from the tailnet keeps its source address in
    advertised networks.
    """

    control_url: str = ""
    want_running: bool = False
    logged_out: bool = False
    hostname: str = ""
    advertise_tags: tuple[str, ...] = ()
    shields_up: bool = False
    operator: str = ""
    exit_node_id: str = ""
    exit_node_ip: str = ""
    exit_node_allow_lan: bool = False
    exit_node_by_admin: bool = False
    advertise_routes: tuple[str, ...] = ()
    accept_routes: bool = False
    no_snat: bool = False
    accept_dns: bool = True

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Raises :class:`PrefsError` for anything but an object of known members with right values."""
        return cls().edited(content)

    def edited(self, changes: Any) -> Self:
        """These prefs with some members, by their JSON names, changed; raises :class:`PrefsError`."""
        if not isinstance(changes, Mapping):
            raise PrefsError("preferences must be a JSON object")
        values: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in READERS:
                raise PrefsError(f"there is no preference {name!r}")
            attribute, read = READERS[name]
            try:
                values[attribute] = read(value)
            except PrefsError as error:
                raise PrefsError(f"{error} ({name})") from None
        if values.keys() & {"exit_node_id", "exit_node_ip"}:  # whoever chooses says who it was
            values.setdefault("exit_node_by_admin", False)
        edited = replace(self, **values)
        if edited.uses_exit_node and edited.offers_exit_node:
            raise PrefsError("a node cannot use an exit node and be one: take one of the two back")
        return edited

    @property
    def uses_exit_node(self) -> bool:
        return bool(self.exit_node_id or self.exit_node_ip)

    @property
    def offers_exit_node(self) -> bool:
        return all(str(route) in self.advertise_routes for route in EXIT_ROUTES)

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value := values[attribute], tuple) else value
            for name, (attribute, _) in READERS.items()
        }


READERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "ControlURL": ("control_url", _url),
    "WantRunning": ("want_running", _flag),
    "LoggedOut": ("logged_out", _flag),
    "Hostname": ("hostname", _hostname),
    "AdvertiseTags": ("advertise_tags", _tags),
    "ShieldsUp": ("shields_up", _flag),
    "OperatorUser": ("operator", _user),
    "ExitNodeID": ("exit_node_id", _stable_id),
    "ExitNodeIP": ("exit_node_ip", _ip),
    "ExitNodeAllowLANAccess": ("exit_node_allow_lan", _flag),
    "ExitNodeByAdmin": ("exit_node_by_admin", _flag),
    "AdvertiseRoutes": ("advertise_routes", _routes),
    "RouteAll": ("accept_routes", _flag),
    "NoSNAT": ("no_snat", _flag),
    "CorpDNS": ("accept_dns", _flag),
}
