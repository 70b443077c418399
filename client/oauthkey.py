"""An OAuth client's secret in place of an auth key: it is traded for a key with the tags of the node.

``tskey-client-…[?ephemeral=false&preauthorized=true&baseURL=https://…]``, as tailscale reads it
(feature/oauthkey): ephemeral unless told otherwise, approved only when told so.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import IO, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from client.errors import LoginError, PrefsError

PREFIX = "tskey-client-"
SECONDS = 20.0  # of each of the two requests
MAX_ANSWER = 1 << 16
TRUE, FALSE = ("1", "t", "true"), ("0", "f", "false")


@dataclass(frozen=True, slots=True)
class OAuthKey:
    """A client's secret, and what the node shall be. ``base_url`` "" = the server that it joins."""

    secret: str = field(repr=False)
    ephemeral: bool = True
    preauthorized: bool = False
    base_url: str = ""


def parse_oauth_key(text: str) -> OAuthKey | None:
    """The secret and its attributes; ``None`` for any other key. Raises :class:`PrefsError`."""
    if not text.startswith(PREFIX):
        return None
    secret, _, query = text.partition("?")
    values: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "baseURL":
            values["base_url"] = value.rstrip("/")
        elif name in ("ephemeral", "preauthorized"):
            values |= {name: _flag(name, value)} if value else {}
        else:
            raise PrefsError(f"the auth key has the attribute {name!r}, which there is not")
    return OAuthKey(secret, **values)


def _flag(name: str, value: str) -> bool:
    if value.lower() not in (*TRUE, *FALSE):
        raise PrefsError(f"{name} in the auth key is true or false, not {value!r}")
    return value.lower() in TRUE


def trade(key: OAuthKey, *, server: str, tags: Sequence[str]) -> str:
    """An auth key for a node with these tags; raises :class:`LoginError` with the server's words."""
    if not tags:
        raise PrefsError("an OAuth client's secret as auth key needs --advertise-tags")
    base = f"{key.base_url or server.rstrip('/')}/api/v2"
    if urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname:
        raise PrefsError(f"{base!r} is no address to trade the OAuth client's secret at")
    asked = urlencode({"grant_type": "client_credentials", "client_secret": key.secret})
    token = _post(f"{base}/oauth/token", asked, {"Content-Type": "application/x-www-form-urlencoded"})
    wanted = {"ephemeral": key.ephemeral, "preauthorized": key.preauthorized, "tags": list(tags)}
    made = _post(
        f"{base}/tailnet/-/keys",
        json.dumps({"capabilities": {"devices": {"create": wanted | {"reusable": False}}}}),
        {"Content-Type": "application/json", "Authorization": f"Bearer {_text(token, 'access_token')}"},
    )
    return _text(made, "key")


def _text(answer: Any, member: str) -> str:
    found = answer.get(member) if isinstance(answer, dict) else None
    if not isinstance(found, str) or not found:
        raise LoginError(f"the server gave no {member} for the OAuth client's secret")
    return found


class _Stay(urllib.request.HTTPRedirectHandler):
    """Secrets go where they were sent, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, body: str, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(url, body.encode(), headers)  # noqa: S310 - trade() looked at it
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=SECONDS) as answer:
            return _read(answer)
    except urllib.error.HTTPError as error:
        with error:
            said = _read(error)
        words = said.get("message") if isinstance(said, dict) else None
        raise LoginError(f"the OAuth client's secret: {words or f'{url} answered {error.code}'}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise LoginError(f"cannot trade the OAuth client's secret at {url}: {error}") from error


def _read(answer: IO[bytes]) -> Any:
    try:
        return json.loads(answer.read(MAX_ANSWER))
    except ValueError:
        return None
