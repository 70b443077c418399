"""A program that calls the API, as tests know it: a token, requests in JSON, answers as values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.test import Client

from accounts.actors import Actor
from accounts.models import Tailnet, User
from accounts.services.tokens import create_api_token, create_oauth_client, issue_access_token


class Refused(Exception):
    """What the server said no to, and how."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class Api:
    """Calls with one token. ``status`` and ``headers`` are those of the last answer."""

    def __init__(self, token: str | None, prefix: str = "/api/v2") -> None:
        self.prefix = prefix
        self._client = Client(raise_request_exception=False)
        self._headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        self.status, self.headers = 0, {}  # type: ignore[var-annotated]

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The answer's value; raises :class:`Refused` for any status but 2xx. Every answer must be JSON."""
        text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = self._headers | options.pop("headers", {})
        answer = self._client.generic(
            method, f"{self.prefix}{path}", text, content_type="application/json", headers=headers, **options
        )
        self.status, self.headers = answer.status_code, dict(answer.items())
        content = b"".join(answer) if answer.streaming else answer.content
        assert answer["Content-Type"] == "application/json", (answer.status_code, content)
        value = json.loads(content)
        if not 200 <= answer.status_code < 300:
            raise Refused(answer.status_code, value["message"])
        return value

    def get(self, path: str, **options: Any) -> Any:
        return self.call("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.call("POST", path, body, **options)

    def put(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.call("PUT", path, body, **options)

    def patch(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.call("PATCH", path, body, **options)

    def delete(self, path: str, **options: Any) -> Any:
        return self.call("DELETE", path, **options)

    def refusal(self, method: str, path: str, body: Any = None, **options: Any) -> Refused:
        """How a call is refused; fails when it is not."""
        try:
            value = self.call(method, path, body, **options)
        except Refused as refused:
            return refused
        raise AssertionError(f"{method} {path} was not refused: {value}")


def as_person(tailnet: Tailnet, user: User, *scopes: str) -> Api:
    """With a token of a person's, which includes ``scopes`` (all, when there are none)."""
    made = create_api_token(tailnet=tailnet, user=user, by=Actor.command(), scopes=scopes or ("all",))
    return Api(made.text)


def as_client(tailnet: Tailnet, *scopes: str, tags: Sequence[str] = ()) -> Api:
    """With an access token of an OAuth client."""
    client = create_oauth_client(tailnet=tailnet, by=Actor.command(), scopes=scopes or ("all",), tags=tags)
    return Api(issue_access_token(client_secret=client.text).text)
