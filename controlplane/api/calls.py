"""Each operation of the API as a command of curl and as lines of Python, from its description alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from controlplane.api.openapi import BEARER, GROUPS, JSON, PLACES, TOKEN_PATH, Schema, operations

VARIABLE = "TRENZA_API_KEY"
CLIENT_VARIABLE = "TRENZA_CLIENT_SECRET"
# What a query asks for that must ask for something.
QUERIES: Mapping[str, str] = {"start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One operation. ``path`` with its query is what an example asks for; ``body`` is ``None`` for none.

    ``needs_token`` is not so of the description itself, and of getting a token.
    """

    name: str
    summary: str
    description: str
    group: str
    method: str
    template: str
    path: str
    body: Any
    needs_token: bool

    @property
    def is_token_request(self) -> bool:
        return self.template == TOKEN_PATH

    def curl(self, base: str) -> str:
        """For a shell; the token is in the environment."""
        parts = ["curl"]
        if self.needs_token:
            parts.append(f'-u "${VARIABLE}:"')
        elif self.is_token_request:
            parts.append(f'-u ":${CLIENT_VARIABLE}"')
        if self.method not in ("GET", "POST") or (self.method == "POST" and self._text is None):
            parts.append(f"-X {self.method}")
        if self._text is not None:
            parts += [f"-H 'Content-Type: {JSON}'", f"-d {shlex.quote(self._text)}"]
        parts.append(shlex.quote(base + self.path))
        return " ".join(parts)

    @property
    def _text(self) -> str | None:
        """The body as it is sent; a token is asked for by who asks alone."""
        return None if self.body is None or self.is_token_request else json.dumps(self.body)

    def python(self, base: str) -> str:
        """For Python as it comes; the token is in the environment."""
        lines = [f'    "{base}{self.path}",']
        headers = []
        if self.needs_token:
            headers.append(f'"Authorization": "Bearer " + os.environ["{VARIABLE}"]')
        if self._text is not None:
            headers.append(f'"Content-Type": "{JSON}"')
            lines.append(f"    data=json.dumps({self.body!r}).encode(),")
        elif self.is_token_request:
            form = f'{{"client_secret": os.environ["{CLIENT_VARIABLE}"]}}'
            lines.append(f"    data=urllib.parse.urlencode({form}).encode(),")
        if self.method != "GET":
            lines.append(f'    method="{self.method}",')
        if headers:
            lines.append(f"    headers={{{', '.join(headers)}}},")
        modules = "json, os, urllib.parse, urllib.request" if self.is_token_request else PLAIN
        call = "\n".join(["request = urllib.request.Request(", *lines, ")"])
        return f"import {modules}\n\n{call}\nprint(json.load(urllib.request.urlopen(request)))"


PLAIN = "json, os, urllib.request"


def calls(document: Schema, places: Mapping[str, str] | None = None) -> Iterator[Call]:
    """Every operation, in the order of groups; ``places`` fills paths with other values than the examples."""
    order = {group.name: number for number, group in enumerate(GROUPS)}
    found = (_call(*one, places or {}) for one in operations(document))
    yield from sorted(found, key=lambda call: order.get(call.group, len(order)))


def _call(path: str, method: str, operation: Schema, places: Mapping[str, str]) -> Call:
    return Call(
        name=operation["operationId"],
        summary=operation.get("summary", ""),
        description=operation.get("description", ""),
        group=next(iter(operation["tags"]), ""),
        method=method.upper(),
        template=path,
        path=_filled(path, operation, places),
        body=_example(operation),
        needs_token=any(BEARER in way for way in operation.get("security", ())),
    )


def _filled(path: str, operation: Schema, places: Mapping[str, str]) -> str:
    query = {}
    for parameter in operation.get("parameters", ()):
        name = parameter["name"]
        if parameter["in"] == "path":
            value = places.get(name) or (PLACES[name].example if name in PLACES else name)
            path = path.replace(f"{{{name}}}", quote(value, safe=":@"))
        elif parameter.get("required"):
            query[name] = QUERIES.get(name) or _first_choice(parameter["schema"]) or "…"
    return f"{path}?{urlencode(query, safe=':')}" if query else path


def _first_choice(schema: Schema) -> str:
    return next(map(str, schema.get("enum", ())), "")


def _example(operation: Schema) -> Any:
    """The body that the description gives as an example; an operation that takes one but has none: ``{}``."""
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return None
    examples = content[JSON].get("examples", {}) if JSON in content else {}
    return next((one["value"] for one in examples.values()), {})
