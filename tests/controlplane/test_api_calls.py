"""The examples of every call: each command of curl and each piece of Python is run against the server."""

from __future__ import annotations

import base64
import io
import json
import shlex
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.test import Client

from accounts.models import Membership, Tailnet, User
from accounts.roles import Role
from controlplane.api.calls import CLIENT_VARIABLE, VARIABLE, Call, calls
from controlplane.api.openapi import JSON, document
from controlplane.views.api import every_call
from tests.accounts import factories
from tests.controlplane.estate import Estate, make_estate
from tests.described import wrong
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

BASE = settings.BASE_URL
CURL = {"-u": "user", "-X": "method", "-H": "header", "-d": "data"}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    value: Any


def send(method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
    """What the server says; every change is undone."""
    assert url.startswith(f"{BASE}/"), url
    kind = headers.pop("Content-Type", JSON if not body else "application/x-www-form-urlencoded")
    with transaction.atomic():
        client = Client(raise_request_exception=False)
        path = url.removeprefix(BASE)
        answer = client.generic(method, path, body, content_type=kind, headers=headers)
        content = b"".join(answer) if answer.streaming else answer.content  # type: ignore[arg-type]
        transaction.set_rollback(True)
    return Answer(answer.status_code, json.loads(content))


def run_curl(command: str, variables: dict[str, str]) -> Answer:
    """As curl reads its options: those that the examples use, and no others."""
    for name, value in variables.items():
        command = command.replace(f"${name}", value)
    program, *words = shlex.split(command)
    assert program == "curl"
    given: dict[str, list[str]] = {name: [] for name in CURL.values()}
    urls = []
    while words:
        word = words.pop(0)
        if word in CURL:
            given[CURL[word]].append(words.pop(0))
        else:
            assert not word.startswith("-"), word
            urls.append(word)
    (url,) = urls
    headers = dict(header.split(": ", 1) for header in given["header"])
    for user in given["user"]:
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    method = next(iter(given["method"]), "POST" if given["data"] else "GET")
    return send(method, url, headers, "".join(given["data"]).encode())


def run_python(code: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Answer:
    """As Python runs it, with the server in the network's place."""
    answers = []

    def urlopen(request: urllib.request.Request) -> io.BytesIO:
        headers = {name.title(): value for name, value in request.header_items()}
        body = request.data if isinstance(request.data, bytes) else b""
        answers.append(send(request.get_method(), request.full_url, headers, body))
        return io.BytesIO(json.dumps(answers[-1].value).encode())

    with monkeypatch.context() as patched:
        patched.setattr(urllib.request, "urlopen", urlopen)
        for name, value in variables.items():
            patched.setenv(name, value)
        exec(compile(code, "example", "exec"), {"print": lambda *_: None})
    (answer,) = answers
    return answer


@pytest.fixture
def estate() -> Iterator[Estate]:
    yield make_estate("acelga", 199)
    cache.clear()


def variables_of(estate: Estate) -> dict[str, str]:
    return {VARIABLE: estate.token.text, CLIENT_VARIABLE: estate.client.text}


def places(estate: Estate) -> dict[str, str]:
    """What there is in the estate for each parameter of a path."""
    return {
        "deviceId": estate.device.stable_id,
        "keyId": estate.key.key.public_id,
        "userId": str(estate.victim.user_id),
        "inviteId": str(estate.invite.pk),
        "endpointId": estate.webhook.public_id,
    }


def test_every_example_asks_for_something_that_is_there(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GETs are answered as described; the others are at least not called badly written."""
    variables, wrongs = variables_of(estate), []
    for call in calls(document(), places(estate)):
        cache.clear()  # limits are not what this is about
        answers = [
            run_curl(call.curl(BASE), variables),
            run_python(call.python(BASE), variables, monkeypatch),
        ]
        fine = (200,) if call.method == "GET" else (200, 404, 409)
        for answer in answers:
            if answer.status not in fine:
                wrongs.append(f"{call.method} {call.path}: {answer.status} {answer.value}")
            elif found := wrong(call.method, call.path, answer.status, answer.value):
                wrongs.append(f"{call.method} {call.path} is not as described: {found}")
        if answers[0].status != answers[1].status:
            wrongs.append(f"{call.method} {call.path}: curl and Python differ")
    assert wrongs == []


def test_who_is_signed_in_to_the_panel_is_nobody_here(estate: Estate) -> None:
    """A page of another origin could otherwise make a browser call for its reader."""
    visitor = Visitor(estate.owner, estate.tailnet)
    for call in calls(document(), places(estate)):
        cache.clear()
        answer = visitor.generic(call.method, call.path, json.dumps(call.body or {}), content_type=JSON)
        assert answer.status_code == (401 if call.needs_token or call.is_token_request else 200), call.path
        assert answer["Content-Type"] == JSON


def test_there_is_an_example_of_every_operation() -> None:
    made = list(calls(document()))
    described = [(path, method) for path, item in document()["paths"].items() for method in item]
    assert {(call.template, call.method.lower()) for call in made} == set(described)
    assert not [call.path for call in made if "{" in call.path or "…" in call.path]


def test_a_secret_is_in_no_example() -> None:
    for one in every_call():
        assert "tskey-" not in one.curl + one.python, one.call.name


def test_a_shell_and_python_read_what_is_meant() -> None:
    body = {"name": 'ana\'s "box" $HOME', "on": True, "off": None}
    call = Call(
        name="x",
        summary="",
        description="",
        group="",
        method="PATCH",
        template="/x",
        path="/x?a=1&b=2",
        body=body,
        needs_token=True,
    )
    words = shlex.split(call.curl("https://h"))
    assert json.loads(words[words.index("-d") + 1]) == body
    assert words[-1] == "https://h/x?a=1&b=2"
    found: dict[str, Any] = {}
    code = call.python("https://h").rpartition("\nprint(")[0]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(VARIABLE, "t")
        exec(code, found)
    request = found["request"]
    assert (json.loads(request.data), request.get_method()) == (body, "PATCH")
    assert urlsplit(request.full_url).query == "a=1&b=2"


# --- the panel's pages -----------------------------------------------------------------------------------


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def shown(visitor: Visitor, path: str) -> str:
    answer = visitor.get(path)
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_the_page_of_calls_shows_each_and_finds_some(place: tuple[Tailnet, User]) -> None:
    visitor = Visitor(place[1])
    page = shown(visitor, "/api/calls")
    for one in every_call():
        assert f'<details id="{one.call.name}"' in page
    found = shown(visitor, "/api/calls?q=exit+node")
    assert '<details id="setExitNode"' in found
    assert '<details id="listWebhooks"' not in found
    only = shown(visitor, "/api/calls?q=listrelays")
    assert '<details id="listRelays" open' in only
    assert "No call has these words" in shown(visitor, "/api/calls?q=banana")
    assert (
        "Ninguna llamada"
        in visitor.get("/api/calls?q=banana", headers={"Accept-Language": "es"}).content.decode()
    )


def test_the_first_page_leads_to_the_others(place: tuple[Tailnet, User]) -> None:
    page = shown(Visitor(place[1]), "/api")
    for path in ("/api/calls", "/api/reference", "/api/v2/openapi.json"):
        assert f'href="{path}"' in page
    assert f"{len(every_call())} calls" in page
    assert f"{BASE}/api/trenza/v1" in page


def test_the_reference_brings_its_own_files(place: tuple[Tailnet, User]) -> None:
    page = shown(Visitor(place[1]), "/api/reference")
    assert 'data-document="/api/v2/openapi.json"' in page
    for name in ("swagger/swagger-ui.css", "swagger/swagger-ui-bundle.js", "reference.js"):
        assert f"/static/{name}" in page
    assert "<style" not in page
    assert "https://" not in page.replace(BASE, "")


@pytest.mark.parametrize(
    ("role", "status"), [(Role.MEMBER, 200), (Role.AUDITOR, 200), (Role.BILLING_ADMIN, 404)]
)
def test_who_reads_these_pages(place: tuple[Tailnet, User], role: Role, status: int) -> None:
    member: Membership = factories.member(place[0], role)
    for path in ("/api", "/api/calls", "/api/reference"):
        assert Visitor.of(member).get(path).status_code == status
