"""``/tailnet/{tailnet}/keys``: auth keys, API tokens and OAuth clients."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.actors import Actor
from accounts.models import AuditEvent, OAuthClient, Tailnet, User
from accounts.roles import Role
from accounts.services import tokens
from accounts.tenancy import scope
from nodes.models import PreAuthKey
from nodes.services.authkeys import create_auth_key
from tests.accounts import factories
from tests.api import Api, as_client, as_person
from tests.nodes import factories as machines
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
ME = Actor.command()
KEYS = "/tailnet/-/keys"


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def creating(**values: Any) -> dict[str, Any]:
    return {"devices": {"create": values}}


def ids(api: Api, query: str = "") -> set[str]:
    return {key["id"] for key in api.get(KEYS + query)["keys"]}


def last_event(tailnet: Tailnet) -> AuditEvent:
    with scope(tailnet=tailnet):
        return AuditEvent.objects.latest("pk")


# --- auth keys -------------------------------------------------------------------------------------------


def test_an_auth_key_is_made_as_asked_and_its_secret_shown_once(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    api = as_person(tailnet, owner)
    made = api.post(
        KEYS,
        {
            "keyType": "auth",
            "description": "web",
            "expirySeconds": 3600,
            "capabilities": creating(reusable=True, ephemeral=True, preauthorized=True, tags=["tag:web"]),
        },
    )
    secret = made.pop("key")
    assert secret.startswith(f"tskey-auth-{made['id']}-")
    assert made == {
        "id": made["id"],
        "keyType": "auth",
        "description": "web",
        "created": made["created"],
        "expires": made["expires"],
        "expirySeconds": 3600,
        "invalid": False,
        "userId": str(owner.pk),
        "capabilities": creating(reusable=True, ephemeral=True, preauthorized=True, tags=["tag:web"]),
    }
    assert api.get(f"{KEYS}/{made['id']}") == made
    event = last_event(tailnet)
    assert (event.actor_type, event.action, event.target_id) == ("API_TOKEN", "CREATE", made["id"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"capabilities": creating(reusable=False, ephemeral=False, tags=None, preauthorized=False)}
        | {"expirySeconds": 0, "description": ""},  # as the Go client writes it
        {"keyType": "auth", "description": "", "expirySeconds": 7776000, "capabilities": creating(tags=[])},
        {"capabilities": {"devices": {}}},
        {"capabilities": {}, "scopes": None, "tags": None},
    ],
)
def test_what_clients_leave_out_is_a_plain_key_of_the_person(
    place: tuple[Tailnet, User], body: dict[str, Any]
) -> None:
    made = as_person(*place).post(KEYS, body)
    assert made["expirySeconds"] == 90 * 86400
    assert made["capabilities"] == creating(reusable=False, ephemeral=False, preauthorized=False, tags=[])
    with scope(tailnet=place[0]):
        assert PreAuthKey.objects.get().user == place[1]


def test_a_revoked_key_stays_as_invalid_and_lets_nobody_in(place: tuple[Tailnet, User]) -> None:
    api = as_person(*place)
    made = api.post(KEYS, {})
    assert api.delete(f"{KEYS}/{made['id']}") == {}
    found = api.get(f"{KEYS}/{made['id']}")
    assert (found["invalid"], found["revoked"].endswith("Z")) == (True, True)
    assert api.delete(f"{KEYS}/{made['id']}") == {}, "again is no error"
    event = last_event(place[0])
    assert (event.action, event.target_type, event.actor_type) == ("REVOKE", "AUTH_KEY", "API_TOKEN")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ([], 400, "dictionary"),
        (
            {"keyType": "federated", "issuer": "https://example.com"},
            400,
            "federated identities are not offered",
        ),
        ({"keyType": "api"}, 400, "API tokens are made in the panel"),
        ({"keyType": None}, 400, "keyType"),
        ({"colour": 1}, 400, "colour"),
        ({"expirySeconds": 7776001}, 400, "expirySeconds"),
        ({"expirySeconds": -1}, 400, "expirySeconds"),
        ({"expirySeconds": "60"}, 400, "expirySeconds"),
        ({"expirySeconds": 10**30}, 400, "expirySeconds"),
        ({"description": "x" * 201}, 400, "description"),
        ({"description": "a\0b"}, 400, "description"),
        ({"capabilities": creating(tags=["web"])}, 400, "write it like tag:web"),
        ({"capabilities": creating(tags=["tag:web\n"])}, 400, "write it like tag:web"),
        ({"capabilities": creating(tags=[f"tag:a{n}" for n in range(51)])}, 400, "50"),
        ({"capabilities": creating(reusable=1)}, 400, "reusable"),
        ({"capabilities": creating(other=True)}, 400, "other"),
        ({"tags": ["tag:web"]}, 409, "capabilities.devices.create.tags"),
        ({"scopes": ["dns"]}, 409, "has no scopes"),
        ({"keyType": "client"}, 409, "needs scopes"),
        ({"keyType": "client", "scopes": []}, 409, "needs scopes"),
        ({"keyType": "client", "scopes": ["nonsense"]}, 400, "scopes"),
        ({"keyType": "client", "scopes": ["dns"], "expirySeconds": 60}, 409, "does not expire"),
        ({"keyType": "client", "scopes": ["dns"], "capabilities": {}}, 409, "does not expire"),
        ({"keyType": "client", "scopes": ["dns"], "tags": [f"tag:a{n}" for n in range(21)]}, 400, "20"),
    ],
)
def test_a_wrong_body_makes_nothing(place: tuple[Tailnet, User], body: Any, status: int, words: str) -> None:
    refused = as_person(*place).refusal("POST", KEYS, body)
    assert (refused.status, words in refused.message) == (status, True), refused
    with scope(tailnet=place[0]):
        assert not PreAuthKey.objects.exists()
        assert not OAuthClient.objects.exists()


# --- OAuth clients ---------------------------------------------------------------------------------------


def test_a_client_is_made_changed_and_revoked(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    api = as_person(tailnet, owner)
    made = api.post(
        KEYS, {"keyType": "client", "description": "ci", "scopes": ["dns", "all:read"], "tags": ["tag:ci"]}
    )
    secret = made.pop("key")
    assert secret.startswith(f"tskey-client-{made['id']}-")
    assert made == {
        "id": made["id"],
        "keyType": "client",
        "description": "ci",
        "created": made["created"],
        "updated": made["updated"],
        "scopes": ["all:read", "dns"],
        "tags": ["tag:ci"],
        "invalid": False,
        "userId": str(owner.pk),
    }
    path = f"{KEYS}/{made['id']}"
    assert api.get(path) == made
    changed = api.put(path, {"keyType": "client", "description": "", "scopes": ["users"], "tags": None})
    assert (changed["scopes"], changed["tags"], changed["description"]) == (["users"], [], "")
    assert "key" not in changed
    assert api.get(path) == changed
    event = last_event(tailnet)
    assert (event.actor_type, event.action, event.target_type) == ("API_TOKEN", "UPDATE", "OAUTH_CLIENT")
    assert tokens.issue_access_token(client_secret=secret).token.scopes == ["users"]
    assert api.delete(path) == {}
    for method, body in (("GET", None), ("PUT", {"scopes": ["dns"]}), ("DELETE", None)):
        assert api.refusal(method, path, body).status == 404
    assert made["id"] not in ids(api, "?all=true")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"scopes": None}, "scopes"),
        ({"scopes": ["dns"], "keyType": "auth"}, "keyType"),
        ({"scopes": ["dns"], "keyType": "federated", "subject": "x"}, "federated"),
        ({"scopes": ["dns"], "capabilities": {}}, "capabilities"),
    ],
)
def test_a_wrong_change_changes_nothing(place: tuple[Tailnet, User], body: Any, words: str) -> None:
    client = tokens.create_oauth_client(tailnet=place[0], by=ME, scopes=["users"]).client
    api = as_person(*place)
    refused = api.refusal("PUT", f"{KEYS}/{client.public_id}", body)
    assert (refused.status, words in refused.message) == (400, True), refused
    assert api.get(f"{KEYS}/{client.public_id}")["scopes"] == ["users"]


def test_only_clients_are_changed(place: tuple[Tailnet, User]) -> None:
    api = as_person(*place)
    made = api.post(KEYS, {})
    assert api.refusal("PUT", f"{KEYS}/{made['id']}", {"scopes": ["dns"]}).status == 409


def test_no_token_gives_what_it_has_not_got(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    other = tokens.create_oauth_client(tailnet=tailnet, by=ME, scopes=["dns"]).client
    callers = (
        as_person(tailnet, owner, "oauth_keys", "dns:read"),
        as_client(tailnet, "oauth_keys", "dns:read", tags=["tag:a"]),
    )
    for api in callers:
        for scopes in (["all"], ["all:read"], ["dns"], ["users:read", "dns:read"]):
            wanted = {"keyType": "client", "scopes": scopes}
            refused = api.refusal("POST", KEYS, wanted)
            assert (refused.status, "cannot give" in refused.message) == (403, True)
            assert api.refusal("PUT", f"{KEYS}/{other.public_id}", wanted).status == 403
        assert api.post(KEYS, {"keyType": "client", "scopes": ["dns:read", "oauth_keys:read"]})["key"]
    made = {"keyType": "client", "scopes": ["dns:read"], "tags": ["tag:b"]}
    assert callers[1].refusal("POST", KEYS, made).status == 403
    assert callers[1].post(KEYS, made | {"tags": ["tag:a"]})["tags"] == ["tag:a"]
    assert callers[0].post(KEYS, made)["tags"] == ["tag:b"]
    assert callers[1].get(f"{KEYS}/{other.public_id}")["scopes"] == ["dns"]


# --- what an OAuth client may ----------------------------------------------------------------------------


def test_a_client_makes_keys_with_its_own_tags_only(place: tuple[Tailnet, User]) -> None:
    tailnet, _ = place
    api = as_client(tailnet, "auth_keys", tags=["tag:a", "tag:b"])
    made = api.post(KEYS, {"capabilities": creating(tags=["tag:a"], preauthorized=True)})
    assert made["capabilities"]["devices"]["create"]["tags"] == ["tag:a"]
    assert "userId" not in made
    with scope(tailnet=tailnet):
        client = OAuthClient.objects.get()
    event = last_event(tailnet)
    assert (event.actor_type, event.actor_id) == ("API_TOKEN", client.public_id)
    for tags, status, words in (
        (["tag:a", "tag:c"], 403, "[tag:c] are invalid or not permitted"),
        ([], 409, "needs tags, out of tag:a, tag:b"),
        (None, 409, "needs tags"),
    ):
        refused = api.refusal("POST", KEYS, {"capabilities": creating(tags=tags)})
        assert (refused.status, words in refused.message) == (status, True), refused
    bare = as_client(tailnet, "auth_keys")
    refused = bare.refusal("POST", KEYS, {"capabilities": creating(tags=["tag:a"])})
    assert (refused.status, "has no tags" in refused.message) == (403, True)


def test_any_token_sees_itself(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    made = tokens.create_api_token(tailnet=tailnet, user=owner, by=ME, scopes=["dns:read"])
    own = Api(made.text).get(f"{KEYS}/{made.token.public_id}")
    assert (own["keyType"], own["scopes"], own["userId"]) == ("api", ["dns:read"], str(owner.pk))
    client = tokens.create_oauth_client(tailnet=tailnet, by=ME, scopes=["dns"], tags=["tag:a"])
    access = tokens.issue_access_token(client_secret=client.text)
    api = Api(access.text)
    assert api.get(f"{KEYS}/{access.token.public_id}")["scopes"] == ["dns"]
    assert api.get(f"{KEYS}/{client.client.public_id}")["tags"] == ["tag:a"]
    assert api.refusal("GET", f"{KEYS}/{made.token.public_id}").status == 403


# --- lists, rights, tailnets -----------------------------------------------------------------------------


def test_lists_are_of_the_caller_or_of_all(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    admin = factories.member(tailnet, Role.ADMIN).user
    member = factories.member(tailnet).user
    mine, others = as_person(tailnet, owner), as_person(tailnet, admin)
    own = {mine.post(KEYS, {})["id"], mine.post(KEYS, {"capabilities": creating(tags=["tag:a"])})["id"]}
    own.add(mine.post(KEYS, {"keyType": "client", "scopes": ["dns"]})["id"])
    theirs = {others.post(KEYS, {})["id"], others.post(KEYS, {"keyType": "client", "scopes": ["dns"]})["id"]}
    clients = {key["id"] for key in mine.get(f"{KEYS}?all=true")["keys"] if key["keyType"] == "client"}
    mine_alone = ids(mine)
    assert own < mine_alone
    assert not theirs & mine_alone
    assert mine_alone == ids(mine, "?all=false")
    everything = ids(mine, "?all=true")
    assert own | theirs < everything
    assert len(everything) == 5 + 2  # and the two tokens
    client = as_client(tailnet, "auth_keys:read", "oauth_keys:read")
    with scope(tailnet=tailnet):
        newest = OAuthClient.objects.latest("pk").public_id
    assert ids(client) == clients | {newest}
    assert ids(client, "?all=true") == own | theirs | {newest}
    assert as_client(tailnet, "auth_keys").get(KEYS) == {"keys": []}
    low = as_person(tailnet, member)
    made = low.post(KEYS, {})["id"]
    assert made in ids(low, "?all=true")
    assert not (own | theirs) & ids(low, "?all=true"), "a member sees their own"
    assert mine.refusal("GET", f"{KEYS}?all=1").status == 400
    assert mine.refusal("GET", f"{KEYS}?every=true").status == 400


def test_scopes_open_their_kind_of_key_and_no_other(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    found = {
        "auth_keys": create_auth_key(tailnet=tailnet, by=ME, user=owner).key.public_id,
        "api_access_tokens": tokens.create_api_token(tailnet=tailnet, user=owner, by=ME).token.public_id,
        "oauth_keys": tokens.create_oauth_client(tailnet=tailnet, by=ME, scopes=["dns"]).client.public_id,
    }
    for area in found:
        api = as_client(tailnet, f"{area}:read")
        for other, key in found.items():
            if other == area:
                assert api.get(f"{KEYS}/{key}")["id"] == key
            else:
                assert api.refusal("GET", f"{KEYS}/{key}").status == 404
            assert api.refusal("DELETE", f"{KEYS}/{key}").status == 403
    none = as_client(tailnet, "dns")
    assert [none.refusal(method, KEYS, {}).status for method in ("GET", "POST")] == [403, 403]
    assert as_client(tailnet, "oauth_keys").refusal("POST", KEYS, {}).status == 403
    assert as_client(tailnet, "auth_keys").refusal("POST", KEYS, {"keyType": "client"}).status == 403
    for area, key in found.items():
        assert as_client(tailnet, area).delete(f"{KEYS}/{key}") == {}
    dead = as_person(tailnet, owner).get(f"{KEYS}/{found['api_access_tokens']}")
    assert (dead["keyType"], dead["invalid"]) == ("api", True)


def test_a_members_token_reaches_their_own_keys(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    theirs = create_auth_key(tailnet=tailnet, by=ME, user=owner).key.public_id
    token = tokens.create_api_token(tailnet=tailnet, user=owner, by=ME).token.public_id
    client = tokens.create_oauth_client(tailnet=tailnet, by=ME, scopes=["dns"]).client.public_id
    member = as_person(tailnet, factories.member(tailnet).user)
    for key in (theirs, token, client):
        assert [member.refusal(method, f"{KEYS}/{key}").status for method in ("GET", "DELETE")] == [404, 404]
    assert member.refusal("POST", KEYS, {"capabilities": creating(tags=["tag:a"])}).status == 403
    assert member.refusal("POST", KEYS, {"capabilities": creating(preauthorized=True)}).status == 403
    assert member.refusal("POST", KEYS, {"keyType": "client", "scopes": ["dns"]}).status == 403
    auditor = as_person(tailnet, factories.member(tailnet, Role.AUDITOR).user, "all")
    assert auditor.get(f"{KEYS}/{theirs}")["id"] == theirs
    assert auditor.refusal("DELETE", f"{KEYS}/{theirs}").status == 403
    network = as_person(tailnet, factories.member(tailnet, Role.NETWORK_ADMIN).user)
    assert network.get(f"{KEYS}/{token}")["id"] == token
    assert network.refusal("DELETE", f"{KEYS}/{token}").status == 403


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OWNER])
def test_whatever_ones_role_is_by_now_ones_own_token_can_be_revoked(
    place: tuple[Tailnet, User], role: Role
) -> None:
    tailnet, owner = place
    user = factories.member(tailnet, role).user
    mine = tokens.create_api_token(tailnet=tailnet, user=user, by=ME)
    theirs = tokens.create_api_token(tailnet=tailnet, user=owner, by=ME)
    api = as_person(tailnet, user, "api_access_tokens")
    assert as_person(tailnet, user, "api_access_tokens:read", "dns").refusal(
        "DELETE", f"{KEYS}/{mine.token.public_id}"
    ).status in (403, 404)
    assert api.delete(f"{KEYS}/{mine.token.public_id}") == {}
    mine.token.refresh_from_db()
    assert mine.token.revoked_at is not None
    event = last_event(tailnet)
    assert (event.action, event.target_id) == ("REVOKE", mine.token.public_id)
    manages = role in (Role.ADMIN, Role.IT_ADMIN)
    if not manages:
        assert api.refusal("DELETE", f"{KEYS}/{theirs.token.public_id}").status in (403, 404)
    theirs.token.refresh_from_db()
    assert theirs.token.revoked_at is None


def test_keys_of_another_tailnet_are_not_there(place: tuple[Tailnet, User]) -> None:
    other, stranger = factories.tailnet()
    theirs = (
        create_auth_key(tailnet=other, by=ME, user=stranger).key.public_id,
        tokens.create_api_token(tailnet=other, user=stranger, by=ME).token.public_id,
        tokens.create_oauth_client(tailnet=other, by=ME, scopes=["all"]).client.public_id,
    )
    api = as_person(*place)
    for wrong in (*theirs, "x", "x" * 300, "%00", "%F0%9F%92%A3"):
        assert api.refusal("GET", f"{KEYS}/{wrong}").status == 404
        assert api.refusal("DELETE", f"{KEYS}/{wrong}").status == 404
        assert api.refusal("PUT", f"{KEYS}/{wrong}", {"scopes": ["dns"]}).status == 404
    assert not set(theirs) & ids(api, "?all=true")
    assert api.refusal("GET", f"/tailnet/{other.name}/keys").status == 404


def test_a_list_of_any_length_costs_the_same(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    api = as_person(tailnet, owner)

    def make(n: int) -> None:
        for _ in range(n):
            create_auth_key(tailnet=tailnet, by=ME, user=owner)
            tokens.create_api_token(tailnet=tailnet, user=owner, by=ME)
            tokens.create_oauth_client(tailnet=tailnet, by=ME, scopes=["dns"])

    def queries() -> int:
        with CaptureQueriesContext(connection) as found:
            api.get(f"{KEYS}?all=true")
        return len(found)

    make(1)
    api.get(KEYS)
    few = queries()
    make(5)
    assert queries() == few


def test_a_used_or_ended_key_is_invalid(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    api = as_person(tailnet, owner)
    ended = create_auth_key(
        tailnet=tailnet,
        by=ME,
        user=owner,
        lifetime=timedelta(hours=1),
        now=timezone.now() - timedelta(days=1),
    ).key
    good = machines.auth_key(tailnet, owner)
    assert api.get(f"{KEYS}/{ended.public_id}")["invalid"] is True
    assert api.get(f"{KEYS}/{good.split('-')[2]}")["invalid"] is False
