"""An OAuth client's secret in place of an auth key: it is traded for a key with the tags of the node.

``tskey-client-…[?ephemeral=false&preauthorized=true&baseURL=https://…]``, as tailscale reads it
(feature/oauthkey): ephemeral unless told otherwise, approved only when told so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from client.control.dial import BUSY, Dialer, Server, ask, busy
from client.control.session import one_line
from client.errors import LoginError, PrefsError
from client.prefs import normal_url
from wire.codec import decode_object
from wire.errors import WireError

PREFIX = "tskey-client-"
SECONDS = 20.0  # of each of the two requests
TRUE, FALSE = ("1", "t", "true"), ("0", "f", "false")


@dataclass(frozen=True, slots=True)
class OAuthKey:
    """A client's secret, and what the node shall be. ``base_url`` "" = the server that it joins."""

    secret: str = field(repr=False)
    ephemeral: bool = True
    preauthorized: bool = False
    base_url: str = ""


AuthKey = str | OAuthKey  # what a node can join with


def parse_auth_key(text: str) -> AuthKey:
    """An OAuth client's secret with its attributes; any other key as it is. Raises :class:`PrefsError`."""
    if not text.startswith(PREFIX):
        return text
    secret, _, query = text.partition("?")
    values: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "baseURL":
            values["base_url"] = normal_url(value)
        elif name in ("ephemeral", "preauthorized"):
            values |= {name: _flag(name, value)} if value else {}
        else:
            raise PrefsError(f"the auth key has the attribute {name!r}, which there is not")
    return OAuthKey(secret, **values)


def _flag(name: str, value: str) -> bool:
    if value.lower() not in (*TRUE, *FALSE):
        raise PrefsError(f"{name} in the auth key is true or false, not {value!r}")
    return value.lower() in TRUE


async def trade(key: OAuthKey, dialer: Dialer, *, server: str, tags: Sequence[str]) -> str:
    """An auth key for a node with these tags.

    Raises :class:`LoginError` with the server's words, ``ControlError`` when it cannot be asked now.
    """
    if not tags:
        raise LoginError(
            "an OAuth client's secret lets in devices with tags alone: name them with --advertise-tags, or "
            "in TRENZA_ADVERTISE_TAGS for trenzad"
        )
    place = Server.from_url(key.base_url or server)
    asked = urlencode({"grant_type": "client_credentials", "client_secret": key.secret})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    token = _text(await _post(dialer, place, "/api/v2/oauth/token", asked, form), "access_token")
    wanted = {"ephemeral": key.ephemeral, "preauthorized": key.preauthorized, "tags": list(tags)}
    made = await _post(
        dialer,
        place,
        "/api/v2/tailnet/-/keys",
        json.dumps({"capabilities": {"devices": {"create": wanted | {"reusable": False}}}}),
        {"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    return _text(made, "key")


def _text(answer: Mapping[str, Any], member: str) -> str:
    found = answer.get(member)
    if not isinstance(found, str) or not found or not (found.isascii() and found.isprintable()):
        raise LoginError(f"the server gave no {member} for the OAuth client's secret")
    return found


async def _post(
    dialer: Dialer, place: Server, path: str, body: str, headers: Mapping[str, str]
) -> Mapping[str, Any]:
    """What the server answers; ``{}`` for what is no object."""
    status, answered, content = await ask(
        dialer, place, "POST", path, headers=headers, body=body.encode(), seconds=SECONDS
    )
    if status >= 500 or status in BUSY:
        raise busy(place, status, answered)
    try:
        said = decode_object(content)
    except WireError:
        said = {}
    if status == 200:
        return said
    words = one_line(str(said.get("message") or "")) or f"{place.url}{path} answered {status}"
    raise LoginError(f"the OAuth client's secret: {words}")
