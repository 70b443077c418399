"""API tokens and OAuth clients on the panel: listed, made and shown once, revoked; by role and tailnet."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.actors import Actor
from accounts.models import ApiToken, AuditEvent, OAuthClient, Tailnet, User
from accounts.roles import Role
from accounts.services.tokens import (
    authenticate_token,
    create_api_token,
    create_oauth_client,
    issue_access_token,
)
from accounts.tenancy import scope
from nodes.services.authkeys import create_auth_key
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

SECRET = re.compile(r"tskey-(?:api|client)-[A-Za-z0-9]+-[A-Za-z0-9]+")
ME = Actor.command()


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def made(visitor: Visitor, kind: str, **values: Any) -> str:
    """The secret that the dialog shows."""
    answer = visitor.submit(f"/keys/{kind}/new", page="/keys", **values)
    assert answer.status_code == 200, answer.content.decode()
    return SECRET.findall(answer.content.decode())[0]


def shown(visitor: Visitor, path: str) -> str:
    answer = visitor.get(path)
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_a_token_is_made_as_asked_and_shown_once(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)
    text = made(
        visitor,
        "tokens",
        description="backups",
        days=7,
        access="some",
        **{"dns": "dns:read", "users": "users"},
    )
    proven = authenticate_token(text=text)
    assert proven is not None
    token = proven.token
    assert (token.user, token.scopes, token.description) == (owner, ["dns:read", "users"], "backups")
    assert token.expires is not None
    assert abs(token.expires - timezone.now() - timedelta(days=7)) < timedelta(minutes=1)
    page = shown(visitor, "/keys?show=tokens")
    assert text not in page
    assert f"tskey-api-{token.public_id}-…" in page
    assert "dns:read" in page
    with scope(tailnet=tailnet):
        assert AuditEvent.objects.filter(target_type="API_KEY", action="CREATE").exists()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"days": 7, "access": "some"},
        {"days": 7, "access": "some", "dns": "users"},
        {"days": 9999, "access": "all"},
        {"days": 7, "access": "root"},
        {"days": 7, "access": "all", "description": "x" * 201},
    ],
)
def test_a_wrong_form_stays_open_and_makes_nothing(place: tuple[Tailnet, User], values: Any) -> None:
    answer = Visitor(place[1]).submit("/keys/tokens/new", page="/keys", **values)
    assert (answer.status_code, answer["HX-Retarget"]) == (422, "#sheet")
    with scope(tailnet=place[0]):
        assert not ApiToken.objects.exists()


def test_a_member_is_offered_and_given_what_is_theirs(place: tuple[Tailnet, User]) -> None:
    visitor = Visitor.of(factories.member(place[0]))
    form = shown(visitor, "/keys/tokens/new")
    assert 'name="devices:core"' in form
    assert 'name="dns"' not in form
    wanted = {"days": 7, "access": "some", "dns": "dns"}
    assert visitor.submit("/keys/tokens/new", page="/keys", **wanted).status_code == 422
    create_api_token(tailnet=place[0], user=place[1], by=ME, description="the-owners")
    made(visitor, "tokens", days=7, access="all", description="mine")
    page = shown(visitor, "/keys?show=tokens")
    assert "mine" in page
    assert "the-owners" not in page
    assert "show=clients" not in page
    assert visitor.get("/keys?show=clients").status_code == 404


def test_a_client_is_made_as_asked_and_shown_once(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)
    text = made(visitor, "clients", description="ci", access="some", tags="ci", **{"auth_keys": "auth_keys"})
    assert text.startswith("tskey-client-")
    with scope(tailnet=tailnet):
        client = OAuthClient.objects.get()
    assert (client.scopes, client.tags, client.created_by) == (["auth_keys"], ["tag:ci"], owner)
    page = shown(visitor, "/keys?show=clients")
    assert text not in page
    assert "0 access tokens" in page
    issue_access_token(client_secret=text)
    assert "Never" in page
    page = shown(visitor, "/keys?show=clients")
    assert "1 access token<" in page
    assert "Never" not in page


def test_only_who_may_tag_sees_the_field(place: tuple[Tailnet, User]) -> None:
    assert 'name="tags"' in shown(Visitor(place[1]), "/keys/clients/new")
    it_admin = Visitor.of(factories.member(place[0], Role.IT_ADMIN))
    assert 'name="tags"' not in shown(it_admin, "/keys/clients/new")
    assert 'value="all"' not in shown(it_admin, "/keys/clients/new")


@pytest.mark.parametrize("kind", ["tokens", "clients"])
def test_one_is_revoked_after_a_question(place: tuple[Tailnet, User], kind: str) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)
    made(visitor, kind, description="old", access="all", days=7)
    model = ApiToken if kind == "tokens" else OAuthClient
    with scope(tailnet=tailnet):
        (row,) = model.objects.order_by("pk")
    path = f"/keys/{kind}/{row.public_id}/revoke"
    assert "Revoke old?" in visitor.fragment(path, page="/keys").content.decode()
    answer = visitor.submit(path, page="/keys")
    assert "Revoked" in answer.content.decode()
    assert "is revoked." in answer["HX-Trigger"]
    assert path not in shown(visitor, f"/keys?show={kind}")
    assert visitor.submit(path)["Location"] == f"/keys?show={kind}"


def test_pages_are_told_of_tokens_and_clients(
    place: tuple[Tailnet, User], django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr("accounts.changes.publish", lambda group, message: told.append(message))
    with django_capture_on_commit_callbacks(execute=True):
        made(Visitor(place[1]), "tokens", access="all", days=7)
        made(Visitor(place[1]), "clients", access="all")
    kinds = [change["type"] for message in told for change in message.get("changes", [])]
    assert kinds == ["apitoken", "oauthclient"]


# --- the three lists ---------------------------------------------------------------------------------------


def test_the_filters_are_those_of_the_url(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)
    for name in ("wanted", "other"):
        create_api_token(tailnet=tailnet, user=owner, by=ME, description=name)
        create_oauth_client(tailnet=tailnet, by=ME, scopes=["all"], description=name)
        create_auth_key(tailnet=tailnet, by=ME, user=owner, description=name)
    with scope(tailnet=tailnet):
        ApiToken.objects.filter(description="other").update(expires=timezone.now() - timedelta(days=1))
        OAuthClient.objects.filter(description="other").update(revoked_at=timezone.now())
    for kind in ("tokens", "clients"):
        active, ended = (shown(visitor, f"/keys?show={kind}&state={state}") for state in ("active", "ended"))
        assert ("wanted<" in active, "other<" in active) == (True, False)
        assert ("wanted<" in ended, "other<" in ended) == (False, True)
    for kind in ("auth-keys", "tokens", "clients"):
        found = shown(visitor, f"/keys?show={kind}&q=wanted")
        assert ("wanted<" in found, "other<" in found) == (True, False)
        assert "Nothing matches" in shown(visitor, f"/keys?show={kind}&q=neither")
    assert "No auth keys" not in shown(visitor, "/keys?show=nonsense&state=x&page=99")


def test_a_key_says_how_many_devices_use_it(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    made_key = create_auth_key(tailnet=tailnet, by=ME, user=owner, reusable=True)
    for name in ("one", "two"):
        machines.node(tailnet, owner, hostname=name)
    with scope(tailnet=tailnet):
        made_key.key.nodes.model.objects.update(auth_key=made_key.key)
    assert "2 devices now" in shown(Visitor(owner), "/keys")


@pytest.mark.parametrize("kind", ["auth-keys", "tokens", "clients"])
def test_each_list_costs_the_same_queries_however_long_it_is(place: tuple[Tailnet, User], kind: str) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)

    def one_more() -> None:
        if kind == "auth-keys":
            create_auth_key(tailnet=tailnet, by=ME, user=factories.member(tailnet).user)
        elif kind == "tokens":
            create_api_token(tailnet=tailnet, user=factories.member(tailnet).user, by=ME)
        else:
            admin = factories.member(tailnet, Role.ADMIN).user
            create_oauth_client(tailnet=tailnet, by=Actor.person(admin), scopes=["dns"])

    def cost() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert visitor.get(f"/keys?show={kind}").status_code == 200
        return len(captured)

    one_more()
    few = cost()
    for _ in range(60):
        one_more()
    assert cost() == few
    assert "1 to 50 of 61" in shown(visitor, f"/keys?show={kind}")


@pytest.mark.parametrize("kind", ["auth-keys", "tokens", "clients"])
def test_an_empty_list_says_which_to_use_when(place: tuple[Tailnet, User], kind: str) -> None:
    page = shown(Visitor(place[1]), f"/keys?show={kind}")
    for words in ("A machine joins by itself", "Your own script", "A service that stays"):
        assert words in page
    member = shown(Visitor.of(factories.member(place[0])), "/keys")
    assert "A service that stays" not in member


def test_a_new_auth_key_is_a_qr_code_too(place: tuple[Tailnet, User]) -> None:
    visitor = Visitor(place[1])
    answer = visitor.submit("/keys/new", page="/keys", days=1).content.decode()
    assert "QR code of the key" in answer
    assert "<svg" in answer.partition("QR code of the key")[2]
    assert "QR code of the key" not in shown(visitor, "/keys")


# --- the API page ------------------------------------------------------------------------------------------


def test_the_page_says_what_the_server_really_answers(place: tuple[Tailnet, User]) -> None:
    visitor = Visitor(place[1])
    page = shown(visitor, "/api")
    assert f"{settings.BASE_URL}/api/v2" in page
    for path in ("/healthz", "/readyz", "/download/install.sh"):
        assert path in page
        assert visitor.get(path).status_code == 200
    assert visitor.get("/api/v2/tailnet/-/devices").status_code == 401, "it wants a token"


def test_the_snippet_is_sound(place: tuple[Tailnet, User]) -> None:
    page = shown(Visitor(place[1]), "/api")
    code = page[page.index("import json") : page.index("urlopen(request)))") + len("urlopen(request)))")]
    compile(code.replace("&quot;", '"'), "snippet", "exec")
