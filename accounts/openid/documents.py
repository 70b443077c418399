"""Small JSON documents of other servers: read strictly, and never for long."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import requests

from accounts.openid.errors import SignInRefused

MAX_DOCUMENT = 256 * 1024  # bytes
CONNECT_SECONDS = 4.0
READ_SECONDS = 5.0  # for each piece
WHOLE_SECONDS = 8.0  # for all pieces together
CHUNK = 16 * 1024


def parse_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object in which no name stands twice, at any depth; raises ``ValueError``.

    Two readers of a document with a name twice may see different values: one of them checks it, another
    uses it (RFC 8259 section 4).
    """
    try:
        found = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def fetch(url: str) -> dict[str, Any]:
    """GET a document."""
    return _ask("GET", url)


def submit(url: str, form: Mapping[str, str], auth: tuple[str, str] | None = None) -> dict[str, Any]:
    """POST a form, with Basic authentication when ``auth`` (name, secret) is given."""
    return _ask("POST", url, data=form, auth=auth)


def _ask(method: str, url: str, **more: Any) -> dict[str, Any]:
    """The answer's JSON object; raises :class:`SignInRefused`: ``unreachable``, ``refused-by-provider``, …

    Redirects are not followed: these addresses are the provider's own word, or the operator's.
    """
    deadline = time.monotonic() + WHOLE_SECONDS
    try:
        with requests.request(
            method,
            url,
            headers={"Accept": "application/json"},
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            allow_redirects=False,
            stream=True,
            **more,
        ) as answer:
            if answer.status_code != 200:
                raise SignInRefused("refused-by-provider" if answer.status_code < 500 else "unreachable")
            body = _body(answer, deadline)
    except requests.RequestException as error:
        raise SignInRefused("unreachable") from error
    try:
        return parse_object(body)
    except ValueError as error:
        raise SignInRefused("malformed") from error


def _body(answer: requests.Response, deadline: float) -> bytes:
    body = b""
    for piece in answer.iter_content(CHUNK):
        body += piece
        if len(body) > MAX_DOCUMENT:
            raise SignInRefused("oversized")
        if time.monotonic() > deadline:
            raise SignInRefused("unreachable")
    return body
