"""``/oauth/token``: an OAuth client's secret, however it is sent, for a token of one hour."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.test import Client
from django.utils import timezone

from accounts import tasks
from accounts.actors import Actor
from accounts.api import oauth
from accounts.errors import NotFound
from accounts.models import ApiToken, AuditEvent, OAuthClient, Tailnet
from accounts.scopes import SCOPES, common, includes
from accounts.services import tokens
from accounts.tenancy import scope
from tests.accounts import factories
from tests.api import Api
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
ME = Actor.command()
FORM = "application/x-www-form-urlencoded"
SETTINGS = "/tailnet/-/settings"


def client_of(tailnet: Tailnet, *scopes: str, tags: tuple[str, ...] = ()) -> tokens.NewClient:
    return tokens.create_oauth_client(tailnet=tailnet, by=ME, scopes=scopes or ("all",), tags=tags)


def ask(body: bytes | str = b"", content_type: str = FORM, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and answer of a request as programs send it; always JSON that nobody may keep."""
    text = body.encode() if isinstance(body, str) else body
    answer = Client(raise_request_exception=False).generic(
        "POST", "/api/v2/oauth/token", text, content_type=content_type, headers=headers
    )
    assert answer["Content-Type"] == "application/json"
    value = json.loads(answer.content)
    if answer.status_code == 200:
        assert answer["Cache-Control"] == "no-store"
    else:
        assert set(value) == {"error", "message"}
    return answer.status_code, value


def form(**values: str) -> tuple[int, dict[str, Any]]:
    return ask(urlencode(values))


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{quote(name)}:{quote(password)}".encode()).decode()


def test_every_way_that_clients_ask_gives_a_token() -> None:
    tailnet, _ = factories.tailnet()
    client = client_of(tailnet, "feature_settings", "dns:read", tags=("tag:b", "tag:a"))
    name, secret = client.client.public_id, client.text
    ways = [
        form(client_id=name, client_secret=secret),  # PyPI's: no grant_type
        form(client_id="some-client-id", client_secret=secret, grant_type="client_credentials"),
        form(client_secret=secret, audience="ignored"),
        ask(json.dumps({"client_id": name, "client_secret": secret}), "application/json"),
        ask("grant_type=client_credentials", authorization=basic("some-client-id", secret)),  # Go's first
        ask(authorization=basic(secret, "")),
    ]
    for status, answer in ways:
        assert status == 200, answer
        token = answer.pop("access_token")
        assert answer == {
            "token_type": "Bearer",
            "expires_in": 3600,
            "scope": "dns:read feature_settings",
            "tags": "tag:b tag:a",
        }
        assert Api(token).get(SETTINGS)


def test_the_token_can_be_narrowed_and_never_widened() -> None:
    tailnet, _ = factories.tailnet()
    client = client_of(tailnet, "dns", "feature_settings", tags=("tag:a", "tag:b"))
    status, answer = form(client_secret=client.text, scope="feature_settings:read", tags="tag:a")
    assert (status, answer["scope"], answer["tags"]) == (200, "feature_settings:read", "tag:a")
    api = Api(answer["access_token"])
    assert api.get(SETTINGS)
    assert api.refusal("PATCH", SETTINGS, {}).status == 403
    assert form(client_secret=client.text, scope="dns:read,feature_settings")[0] == 200
    for values in ({"scope": "users"}, {"scope": "all"}, {"scope": "nonsense"}, {"tags": "tag:c"}):
        status, answer = form(client_secret=client.text, **values)
        assert (status, answer["error"]) == (400, "invalid_scope"), values


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        ("", FORM, 401, "invalid_client"),
        ("client_secret=tskey-client-a-b", FORM, 401, "invalid_client"),
        ("client_secret=" + "x" * 5000, FORM, 400, "invalid_request"),
        ("client_secret=" + "x" * 900, FORM, 401, "invalid_client"),
        ("client_secret=%00%ff", FORM, 400, "invalid_request"),
        ("grant_type=password&client_secret=x", FORM, 400, "invalid_request"),
        ("a=b&" * 60, FORM, 400, "invalid_request"),
        ("{", "application/json", 400, "invalid_request"),
        ("[]", "application/json", 400, "invalid_request"),
        ('{"client_secret": 1}', "application/json", 400, "invalid_request"),
        ("x" * 20000, FORM, 413, "invalid_request"),
        (b"\xff\xfe", FORM, 400, "invalid_request"),
    ],
)
def test_what_is_wrong_is_refused_in_oauths_shape(
    body: Any, content_type: str, status: int, code: str
) -> None:
    found, answer = ask(body, content_type)
    assert (found, answer["error"]) == (status, code), answer
    assert answer["message"]


def test_only_post_is_answered() -> None:
    assert Api(None).refusal("GET", "/oauth/token").status == 405


def test_a_revoked_client_gets_none_and_its_tokens_end() -> None:
    tailnet, _ = factories.tailnet()
    client = client_of(tailnet)
    api = Api(form(client_secret=client.text)[1]["access_token"])
    assert api.get(SETTINGS)
    tokens.revoke_oauth_client(client=client.client, by=ME)
    assert api.refusal("GET", SETTINGS).status == 401
    assert form(client_secret=client.text)[1]["error"] == "invalid_client"


def test_guessing_and_greed_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    tailnet, _ = factories.tailnet()
    first, second = client_of(tailnet), client_of(tailnet)
    monkeypatch.setattr(oauth, "MAX_ISSUED", 2)
    assert [form(client_secret=first.text)[0] for _ in range(3)] == [200, 200, 429]
    assert form(client_secret=second.text)[0] == 200, "the limit is one client's"
    monkeypatch.setattr(oauth, "MAX_WRONG", 2)
    assert [form(client_secret="guess")[0] for _ in range(3)] == [401, 401, 429]
    answer = Client().post("/api/v2/oauth/token", {"client_secret": "guess"})
    assert 0 < int(answer["Retry-After"]) <= 60
    assert form(client_secret=second.text)[0] == 429, "right ones count as guesses, too, while there are many"


def test_narrowing_a_client_narrows_its_living_tokens_and_widening_brings_nothing_new() -> None:
    tailnet, _ = factories.tailnet()
    client = client_of(tailnet, "all", tags=("tag:a", "tag:b"))
    whole = Api(form(client_secret=client.text)[1]["access_token"])
    reading = Api(form(client_secret=client.text, scope="all:read")[1]["access_token"])
    assert whole.patch(SETTINGS, {})
    tokens.update_oauth_client(client=client.client, by=ME, scopes=["feature_settings:read"], tags=["tag:b"])
    assert whole.get(SETTINGS)
    assert whole.refusal("PATCH", SETTINGS, {}).status == 403
    tokens.update_oauth_client(client=client.client, by=ME, scopes=["feature_settings"], tags=["tag:b"])
    assert whole.patch(SETTINGS, {})
    assert reading.get(SETTINGS)
    assert reading.refusal("PATCH", SETTINGS, {}).status == 403
    tokens.update_oauth_client(client=client.client, by=ME, scopes=["dns"])
    assert whole.refusal("GET", SETTINGS).status == 403


def test_a_change_is_in_the_log_and_a_revoked_client_has_none() -> None:
    tailnet, _ = factories.tailnet()
    client = client_of(tailnet, "dns").client
    tokens.update_oauth_client(client=client, by=ME, scopes=["users"], description="new", tags=["tag:x"])
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.latest("pk")
    assert (event.action, event.target_type, event.target_id) == ("UPDATE", "OAUTH_CLIENT", client.public_id)
    assert event.old == {"description": "", "scopes": ["dns"], "tags": []}
    assert event.new == {"description": "new", "scopes": ["users"], "tags": ["tag:x"]}
    tokens.revoke_oauth_client(client=client, by=ME)
    with pytest.raises(NotFound):
        tokens.update_oauth_client(client=client, by=ME, scopes=["all"])


def test_what_two_lists_have_in_common_is_what_both_include() -> None:
    lists = [["all"], ["all:read"], ["dns"], ["dns:read", "users"], ["logs:configuration:read"], []]
    for some in lists:
        for others in lists:
            found = common(some, others)
            for one in SCOPES:
                both = includes(some, one) and includes(others, one)
                assert includes(found, one) == both, (some, others, one)
    assert common(["all"], ["all"]) == ["all"]
    assert common(["all:read"], ["dns", "users:read"]) == ["dns:read", "users:read"]


def test_the_sweep_deletes_what_ran_out_but_the_last_that_a_client_used() -> None:
    tailnet, owner = factories.tailnet()
    other, _ = factories.tailnet()
    now = timezone.now()
    old = {"now": now - timedelta(hours=3)}
    clients = [client_of(tailnet), client_of(tailnet), client_of(other)]
    for client in clients:
        for _ in range(3):
            tokens.issue_access_token(client_secret=client.text, **old)
    fresh = tokens.issue_access_token(client_secret=clients[1].text).token
    personal = tokens.create_api_token(
        tailnet=tailnet, user=owner, by=ME, lifetime=timedelta(minutes=1), **old
    ).token
    with scope(tailnet=tailnet):
        last_used = ApiToken.objects.filter(oauth_client=clients[0].client).order_by("pk")[0]
        ApiToken.objects.filter(pk=last_used.pk).update(last_used_at=now - timedelta(hours=2, minutes=30))
    assert tasks.clean_access_tokens() == 2 + 3 + 2
    with scope(tailnet=tailnet):
        assert set(ApiToken.objects.values_list("pk", flat=True)) == {last_used.pk, fresh.pk, personal.pk}
        assert OAuthClient.objects.count() == 2
    with scope(tailnet=other):
        assert ApiToken.objects.count() == 1
