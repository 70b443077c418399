"""``/tailnet/{tailnet}/settings``, and what every address of the API has in common."""

from __future__ import annotations

import base64

import pytest

from accounts.api import authentication, views
from accounts.models import AuditEvent
from accounts.tenancy import scope
from tests.accounts import factories as people
from tests.api import Api, as_client, as_person
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
SETTINGS = "/tailnet/-/settings"


def test_settings_are_read_and_changed() -> None:
    tailnet, owner = people.tailnet()
    api = as_person(tailnet, owner)
    assert api.get(SETTINGS)["devicesKeyDurationDays"] == 180
    changed = api.patch(
        SETTINGS, {"devicesKeyDurationDays": 30, "usersApprovalOn": True, "httpsEnabled": None}
    )
    assert (changed["devicesKeyDurationDays"], changed["usersApprovalOn"]) == (30, True)
    assert api.get(f"/tailnet/{tailnet.name}/settings") == changed
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.order_by("-pk")[0]
    assert (event.actor_type, event.origin, event.new) == (
        "API_TOKEN",
        "API",
        {"key_duration_days": 30, "users_approval": True},
    )


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "no JSON"),
        (b"[]", 400, "dictionary"),
        ({"devicesApprovalOn": "true"}, 400, "devicesApprovalOn: is neither true nor false"),
        ({"devicesKeyDurationDays": True}, 400, "is no whole number"),
        ({"devicesKeyDurationDays": 181}, 400, "180"),
        ({"colour": 1}, 400, "colour: there is no member of this name"),
        ({"routeSelection": "regional-routing"}, 409, "routeSelection is active-passive-failover on"),
        ({"routeSelection": "best"}, 400, "routeSelection: is none of the values"),
        ({"httpsEnabled": True}, 409, "httpsEnabled is false on this server"),
        (b'"' + b"x" * (1 << 20) + b'"', 413, "at most"),
    ],
)
def test_what_is_wrong_changes_nothing_and_says_why(body: object, status: int, words: str) -> None:
    tailnet, owner = people.tailnet()
    api = as_person(tailnet, owner)
    before = api.get(SETTINGS)
    refused = api.refusal("PATCH", SETTINGS, body)
    assert (refused.status, words in refused.message) == (status, True), refused
    assert api.get(SETTINGS) == before


def test_who_may_not_is_told_so() -> None:
    tailnet, owner = people.tailnet()
    other, _ = people.tailnet()
    assert Api(None).refusal("GET", SETTINGS).status == 401
    for wrong in ("", "tskey-api-no-no", "x" * 1000, "ñ"):
        assert Api(wrong).refusal("GET", SETTINGS).message == authentication.REFUSED
    reads = as_person(tailnet, owner, "feature_settings:read", "devices:core")
    assert reads.get(SETTINGS)
    assert "feature_settings" in reads.refusal("PATCH", SETTINGS, {}).message
    assert as_person(tailnet, owner, "dns").refusal("GET", SETTINGS).status == 403
    assert reads.refusal("GET", f"/tailnet/{other.name}/settings").status == 404
    assert reads.refusal("GET", "/nowhere/at/all").status == 404
    assert reads.refusal("DELETE", SETTINGS).status == 405
    member = people.member(tailnet)
    assert as_person(tailnet, member.user).refusal("GET", SETTINGS).status == 403


def test_a_client_acts_for_the_tailnet_with_its_scopes() -> None:
    tailnet, _ = people.tailnet()
    assert as_client(tailnet, "feature_settings").patch(SETTINGS, {"devicesApprovalOn": False})
    assert as_client(tailnet, "dns").refusal("PATCH", SETTINGS, {}).status == 403


def test_basic_carries_the_token_as_the_user() -> None:
    tailnet, owner = people.tailnet()
    token = as_person(tailnet, owner)._headers["authorization"].removeprefix("Bearer ")
    basic = base64.b64encode(f"{token}:".encode()).decode()
    assert Api(None).get(SETTINGS, headers={"authorization": f"Basic {basic}"})
    assert Api(None).refusal("GET", SETTINGS, headers={"authorization": "Basic !"}).status == 401
    assert Api(None).refusal("GET", SETTINGS, headers={"authorization": "Digest x"}).status == 401


def test_limits_say_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tailnet, owner = people.tailnet()
    api = as_person(tailnet, owner)
    monkeypatch.setattr(views, "MAX_CALLS", 3)
    for _ in range(3):
        api.get(SETTINGS)
    assert api.refusal("GET", SETTINGS).status == 429
    assert 0 < int(api.headers["Retry-After"]) <= 60
    assert as_person(tailnet, owner).get(SETTINGS), "a limit is one token's"
    monkeypatch.setattr(authentication, "MAX_WRONG", 2)
    statuses = [Api("wrong").refusal("GET", SETTINGS).status for _ in range(3)]
    assert statuses == [401, 401, 429]
