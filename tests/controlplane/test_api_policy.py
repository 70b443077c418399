"""The API's policy file: byte for byte, guarded, tried, previewed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from django.test import Client

from accounts.actors import Actor
from accounts.models import AuditEvent, Tailnet, User
from accounts.roles import Role
from accounts.services.tokens import create_api_token
from accounts.tenancy import scope
from controlplane.netmap.policy.default import TEXT as DEFAULT
from controlplane.netmap.policy.hujson import MAX_POLICY_BYTES
from controlplane.services.policy import digest_of, save_policy
from tests.accounts import factories as people
from tests.api import Api, as_person
from tests.nodes import factories as machines
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
ACL = "/api/v2/tailnet/-/acl"
HUJSON = "application/hujson"
TEXT = """// ñandú
{
	"groups": {"group:ops": ["%s"]}, // who
	"tagOwners": {"tag:db": []},
	"acls": [
		{"action": "accept", "src": ["group:ops"], "dst": ["tag:db:5432"]},
		{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"], },
	],
}
"""


class Caller:
    """A program that sends policies as they are."""

    def __init__(self, tailnet: Tailnet, user: User, *scopes: str) -> None:
        token = create_api_token(tailnet=tailnet, user=user, by=Actor.command(), scopes=scopes or ("all",))
        self.client = Client(headers={"authorization": f"Bearer {token.text}"}, raise_request_exception=False)

    def ask(self, method: str, path: str = "", body: str | bytes = b"", **headers: str) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else body.encode()
        return self.client.generic(method, ACL + path, content, content_type=HUJSON, headers=sent)


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return people.tailnet("ours")


@pytest.fixture
def caller(place: tuple[Tailnet, User]) -> Caller:
    return Caller(*place)


@pytest.fixture
def text(place: tuple[Tailnet, User]) -> str:
    return TEXT % place[1].email


def etag_of(text: str) -> str:
    return f'"{digest_of(text)}"'


# --- read and written ------------------------------------------------------------------------------------


def test_the_default_is_told_until_there_is_another(caller: Caller) -> None:
    whole = caller.ask("GET", accept=HUJSON)
    assert (whole.status_code, whole.content.decode(), whole["Content-Type"]) == (200, DEFAULT, HUJSON)
    assert whole["ETag"] == etag_of(DEFAULT)
    for accept in ("application/json", "*/*", "text/html"):
        plain = caller.ask("GET", accept=accept)
        assert (plain["Content-Type"], plain["ETag"]) == ("application/json", etag_of(DEFAULT))
        assert "grants" in plain.json()


def test_a_policy_keeps_every_byte(caller: Caller, text: str) -> None:
    made = caller.ask("POST", body=text, accept=HUJSON)
    assert (made.status_code, made.content.decode(), made["ETag"]) == (200, text, etag_of(text))
    assert caller.ask("GET", accept=HUJSON).content.decode() == text
    assert caller.ask("GET").json()["tagOwners"] == {"tag:db": []}
    crlf = text.replace("\n", "\r\n") + "  "
    assert caller.ask("POST", body=crlf, accept=f"{HUJSON}, */*").content.decode() == crlf
    assert caller.ask("POST", body='{"acls": []}').json() == {"acls": []}


def test_details_are_the_text_in_base64_with_what_is_to_be_said(caller: Caller, text: str) -> None:
    caller.ask("POST", body=text.replace('"tagOwners"', '"hosts": {},\n"tagOwners"'))
    told = caller.ask("GET", "?details=1").json()
    assert base64.b64decode(told["acl"]).decode() == caller.ask("GET", accept=HUJSON).content.decode()
    assert (told["warnings"], told["errors"]) == ([], [])
    caller.ask("POST", body='{"groups": {"group:x": ["who@example.com"]}, "acls": []}')
    assert "who@example.com" in caller.ask("GET", "?details=1").json()["warnings"][0]
    assert caller.ask("GET", "?details=2").status_code == 400


def test_an_empty_body_brings_the_default_back(caller: Caller, text: str) -> None:
    caller.ask("POST", body=text)
    assert caller.ask("POST", body="", accept=HUJSON).content.decode() == DEFAULT
    assert caller.ask("POST", body=text, if_match='"ts-default"').status_code == 200


def test_if_match_guards_however_it_is_quoted(caller: Caller, text: str) -> None:
    first = caller.ask("GET")["ETag"]
    assert caller.ask("POST", body=text, if_match=first).status_code == 200
    for stale in (first, '"ts-default"', '"0"', "x"):
        refused = caller.ask("POST", body=DEFAULT, if_match=stale, accept=HUJSON)
        assert (refused.status_code, refused["Content-Type"]) == (412, "application/json")
        assert refused.json()["message"]
    for number, fresh in enumerate((etag_of(text), digest_of(text), f"W/{etag_of(text)}", "*")):
        assert caller.ask("POST", body=f"// {number}\n{text}", if_match=fresh).status_code == 200, fresh
        caller.ask("POST", body=text)


def test_a_save_is_the_tokens_in_the_log(place: tuple[Tailnet, User], caller: Caller, text: str) -> None:
    caller.ask("POST", body=text)
    with scope(tailnet=place[0]):
        event = AuditEvent.objects.latest("pk")
    assert (event.target_type, event.actor_type, event.actor_name) == (
        "POLICY_FILE",
        "API_TOKEN",
        place[1].email,
    )


# --- what is wrong ---------------------------------------------------------------------------------------

FAILING = '{"acls": [], "tests": [{"src": "ana@example.com", "accept": ["100.64.0.1:22"]}]}'
UNKNOWN_TAG = '{\n"acls": [{"action": "accept", "src": ["tag:no"], "dst": ["*:*"]}]}'


@pytest.mark.parametrize("address", ["", "/validate", "/preview?type=user&previewFor=ana@example.com"])
def test_a_text_that_is_no_policy_is_refused_by_its_place(caller: Caller, address: str) -> None:
    status = 200 if address == "/validate" else 400
    broken = caller.ask("POST", address, body='{"acls": [}', accept=HUJSON)
    assert (broken.status_code, broken["Content-Type"]) == (status, "application/json")
    assert broken.json()["message"].startswith("line 1, column 11: ")
    meant = caller.ask("POST", address, body=UNKNOWN_TAG).json()
    assert "tag not found" in meant["message"]
    assert "line" not in meant["message"], "in the words of the public API"
    ((only,), user) = (meant["data"][0]["errors"], meant["data"][0]["user"])
    assert (only.startswith("line 2, column "), user) == (True, "")
    assert caller.ask("GET", accept=HUJSON).content.decode() == DEFAULT


def test_failing_tests_are_told_by_whose_they_are(caller: Caller) -> None:
    refused = caller.ask("POST", body=FAILING)
    assert refused.status_code == 400
    tried = caller.ask("POST", "/validate", body=FAILING)
    assert tried.status_code == 200
    for told in (refused.json(), tried.json()):
        assert told["message"] == "test(s) failed"
        (one,) = told["data"]
        assert (one["user"], bool(one["errors"])) == ("ana@example.com", True)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\xff\xfe", 400),
        (b" " * (MAX_POLICY_BYTES + 1), 413),
        (b"[" * 100_000, 400),
        (b"7", 400),
        (b"[]", 400),
    ],
)
def test_what_cannot_be_a_policy_is_refused_at_once(caller: Caller, body: bytes, status: int) -> None:
    refused = caller.ask("POST", body=body)
    assert (refused.status_code, bool(refused.json()["message"])) == (status, True)


# --- tried -----------------------------------------------------------------------------------------------


def test_what_is_right_is_an_empty_object(caller: Caller, text: str) -> None:
    for body in (text, "", "{}", '{"groups": {"group:x": ["who@example.com"]}, "acls": []}'):
        tried = caller.ask("POST", "/validate", body=body)
        assert (tried.status_code, tried.content) == (200, b"{}"), body
    assert caller.ask("GET", accept=HUJSON).content.decode() == DEFAULT


def test_a_list_is_tests_against_the_policy_in_force(
    place: tuple[Tailnet, User], caller: Caller, text: str
) -> None:
    good = [{"src": place[1].email, "accept": ["tag:db:5432"], "deny": ["tag:db:22"]}]
    assert caller.ask("POST", "/validate", body=json.dumps(good)).json()["message"] == "test(s) failed"
    caller.ask("POST", body=text)
    assert caller.ask("POST", "/validate", body=f"// mine\n{json.dumps(good)}").json() == {}
    bad = [{"src": place[1].email, "accept": ["tag:db:22"]}]
    told = caller.ask("POST", "/validate", body=json.dumps(bad)).json()
    assert (told["data"][0]["user"], len(told["data"][0]["errors"])) == (place[1].email, 1)
    broken = caller.ask("POST", "/validate", body='[{"src": }]').json()
    assert broken["message"].startswith("line 1, column ")


# --- previewed -------------------------------------------------------------------------------------------


def previewed(caller: Caller, text: str, kind: str, what: str) -> Any:
    answer = caller.ask("POST", f"/preview?type={kind}&previewFor={what}", body=text)
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert (told["type"], told["previewFor"]) == (kind, what)
    return told["matches"]


def test_a_preview_tells_which_rules_concern_a_person(
    place: tuple[Tailnet, User], caller: Caller, text: str
) -> None:
    other = people.member(place[0]).user
    ops = {"users": ["group:ops"], "ports": ["tag:db:5432"], "lineNumber": 6}
    own = {"users": ["autogroup:member"], "ports": ["autogroup:self:*"], "lineNumber": 7}
    assert previewed(caller, text, "user", place[1].email) == [ops, own]
    assert previewed(caller, text, "user", other.email) == [own]
    assert previewed(caller, text, "user", "nobody@example.com") == []


def test_a_preview_tells_which_rules_lead_to_a_place(
    place: tuple[Tailnet, User], caller: Caller, text: str
) -> None:
    db = machines.node(place[0], tags=["tag:db"], preapproved=True)
    own = machines.node(place[0], place[1], preapproved=True)
    assert [one["ports"] for one in previewed(caller, text, "ipport", f"{db.ipv4}:5432")] == [["tag:db:5432"]]
    assert [one["ports"] for one in previewed(caller, text, "ipport", f"[{db.ipv6}]:5432")] == [
        ["tag:db:5432"]
    ]
    assert previewed(caller, text, "ipport", f"{db.ipv4}:22") == []
    assert [one["lineNumber"] for one in previewed(caller, text, "ipport", f"{own.ipv4}:22")] == [7]
    assert previewed(caller, text, "ipport", "192.0.2.1:22") == []
    for bad in ("10.0.0.1", "10.0.0.1:0", "10.0.0.1:99999", "host:80", ":80"):
        assert caller.ask("POST", f"/preview?type=ipport&previewFor={bad}", body=text).status_code == 400
    assert caller.ask("POST", "/preview?type=colour&previewFor=x", body=text).status_code == 400
    assert caller.ask("POST", "/preview?type=user", body=text).status_code == 400


# --- who may ---------------------------------------------------------------------------------------------


def test_reading_needs_one_scope_and_writing_another(place: tuple[Tailnet, User], text: str) -> None:
    reads, other = Caller(*place, "policy_file:read"), Caller(*place, "dns")
    assert reads.ask("GET").status_code == reads.ask("POST", "/validate", body=text).status_code == 200
    assert reads.ask("POST", body=text).status_code == 403
    for method, path in (("GET", ""), ("POST", ""), ("POST", "/validate"), ("POST", "/preview?type=user")):
        refused = other.ask(method, path, body=text, accept=HUJSON)
        assert (refused.status_code, refused["Content-Type"]) == (403, "application/json")
    auditor = people.member(place[0], Role.AUDITOR).user
    assert Caller(place[0], auditor).ask("GET").status_code == 200
    assert Caller(place[0], auditor).ask("POST", body=text).status_code == 403


def test_another_tailnets_policy_is_not_there(place: tuple[Tailnet, User], text: str) -> None:
    other, owner = people.tailnet("theirs")
    save_policy(tailnet=place[0], text=text, by=Actor.command())
    api: Api = as_person(other, owner)
    assert "grants" in api.get("/tailnet/-/acl")
    assert api.refusal("GET", "/tailnet/ours/acl").status == 404
