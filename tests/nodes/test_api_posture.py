"""Posture attributes in the public API."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import AuditEvent, Tailnet, User
from accounts.tenancy import scope
from nodes import posture
from nodes.models import Node, PostureAttribute
from nodes.posture import own_attributes
from tests.accounts import factories as people
from tests.api import Api, as_client, as_person
from tests.nodes import factories
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
BATCH = "/tailnet/-/device-attributes"
SCORE = "custom:score"


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return people.tailnet(device_approval=False)


@pytest.fixture
def node(place: tuple[Tailnet, User]) -> Node:
    return factories.node(*place, hostinfo={"Hostname": "box", "OS": "macOS", "IPNVersion": "1.90.2-t1"})


@pytest.fixture
def api(place: tuple[Tailnet, User]) -> Api:
    return as_person(*place, "devices:posture_attributes")


def custom(api: Api, node: Node) -> dict[str, Any]:
    attributes = api.get(f"/device/{node.pk}/attributes")["attributes"]
    return {key: value for key, value in attributes.items() if key.startswith("custom:")}


def events(tailnet: Tailnet) -> list[AuditEvent]:
    with scope(tailnet=tailnet):
        return list(AuditEvent.objects.filter(target_property="POSTURE_ATTRIBUTES").order_by("pk"))


def soon(**length: float) -> str:
    return (timezone.now() + timedelta(**length)).isoformat()


def test_what_devices_tell_of_themselves() -> None:
    assert own_attributes({}) == {"node:tsAutoUpdate": False}
    assert own_attributes({"OS": "iOS", "OSVersion": 7, "IPNVersion": "?", "AllowsUpdate": 1}) == {
        "node:os": "ios",
        "node:tsAutoUpdate": False,
    }
    told = {"OS": "linux", "OSVersion": "6.1", "IPNVersion": "1.91.3-t1", "AllowsUpdate": True}
    assert own_attributes(told | {"StateEncrypted": True}) == {
        "node:os": "linux",
        "node:osVersion": "6.1",
        "node:tsVersion": "1.91.3",
        "node:tsReleaseTrack": "unstable",
        "node:tsAutoUpdate": True,
        "node:tsStateEncrypted": True,
    }


def test_attributes_are_set_changed_and_removed(place: tuple[Tailnet, User], node: Node, api: Api) -> None:
    path = f"/device/{node.stable_id}/attributes"
    own = api.get(path)["attributes"]
    assert own["node:os"] == "macos"
    expiry = (timezone.now() + timedelta(days=1)).replace(microsecond=0)
    body = {"value": 87, "expiry": expiry.isoformat(), "comment": "audited"}
    set_ = api.post(f"{path}/{SCORE}", body)
    told = f"{expiry.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert set_ == api.get(path) == {"attributes": own | {SCORE: 87}, "expiries": {SCORE: told}}
    for value in (True, "my_value.1", 1.5):
        api.delete(f"{path}/{SCORE}")
        # What the Go client sends when there is no expiry and no comment.
        api.post(f"{path}/{SCORE}", {"value": value, "expiry": "0001-01-01T00:00:00Z", "comment": ""})
        assert api.get(path) == {"attributes": own | {SCORE: value}, "expiries": {}}
    api.post(f"{path}/{SCORE}", {"value": 2, "expiry": None})
    api.delete(f"{path}/{SCORE}")
    assert api.refusal("DELETE", f"{path}/{SCORE}").status == 404
    first, *_, last_but_one, last = events(place[0])
    assert (first.details, first.actor_type, first.target_id) == ("audited", "API_TOKEN", node.stable_id)
    assert (first.old, first.new) == (None, {SCORE: {"value": 87, "expires": expiry.isoformat()}})
    assert (last_but_one.old, last_but_one.new) == ({SCORE: 1.5}, {SCORE: 2})
    assert (last.old, last.new) == ({SCORE: 2}, None)


def test_an_attribute_that_stays_as_it_is_is_no_event(
    place: tuple[Tailnet, User], node: Node, api: Api
) -> None:
    for _ in range(2):
        api.post(f"/device/{node.pk}/attributes/{SCORE}", {"value": 1})
    assert len(events(place[0])) == 1
    api.post(f"/device/{node.pk}/attributes/{SCORE}", {"value": 1, "expiry": soon(days=1)})
    assert len(events(place[0])) == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"value": None}, 400),
        ({"value": []}, 400),
        ({"value": "two words"}, 400),
        ({"value": "a\n"}, 400),
        ({"value": "a" * 51}, 400),
        ({"value": "\0"}, 400),
        ({"value": 2**53}, 400),
        ({"value": 1e300}, 400),
        ({"value": 1, "expiry": "tomorrow"}, 400),
        ({"value": 1, "expiry": 7}, 400),
        ({"value": 1, "comment": "x" * 201}, 400),
        ({"value": 1, "comment": "\0"}, 400),
        ({"value": 1, "other": 1}, 400),
        ({"value": 1, "expiry": "2020-01-01T00:00:00Z"}, 409),
        ({"value": 1, "expiry": "9999-12-31T23:59:59-12:00"}, 200),
    ],
)
def test_values_and_moments_are_checked(node: Node, api: Api, body: Any, status: int) -> None:
    path = f"/device/{node.pk}/attributes/{SCORE}"
    if status == 200:
        assert api.post(path, body)["attributes"][SCORE] == 1
        return
    assert api.refusal("POST", path, body).status == status
    assert custom(api, node) == {}


@pytest.mark.parametrize(
    "key", ["node:os", "custom:", "custom:a-b", "custom:a%0a", "x", f"custom:{'a' * 44}"]
)
def test_keys_are_of_people(node: Node, api: Api, key: str) -> None:
    assert api.refusal("POST", f"/device/{node.pk}/attributes/{key}", {"value": 1}).status == 409
    assert api.refusal("DELETE", f"/device/{node.pk}/attributes/{key}").status == 404
    assert api.refusal("PATCH", BATCH, {"nodes": {node.stable_id: {"custom:\0": None}}}).status == 409
    assert custom(api, node) == {}


def test_a_key_has_one_spelling_and_one_type_in_a_tailnet(
    place: tuple[Tailnet, User], node: Node, api: Api
) -> None:
    second = factories.node(*place, hostname="second")
    other, stranger = people.tailnet(device_approval=False)
    foreign = factories.node(other, stranger)
    api.post(f"/device/{node.pk}/attributes/{SCORE}", {"value": 1})
    path = f"/device/{second.pk}/attributes"
    assert "custom:score" in api.refusal("POST", f"{path}/custom:Score", {"value": 1}).message
    assert api.refusal("POST", f"{path}/{SCORE}", {"value": "1"}).status == 409
    assert api.refusal("POST", f"{path}/{SCORE}", {"value": True}).status == 409
    api.post(f"{path}/{SCORE}", {"value": 2.5})
    assert as_person(other, stranger).post(f"/device/{foreign.pk}/attributes/custom:Score", {"value": "1"})
    for one in (node, second):
        api.delete(f"/device/{one.pk}/attributes/{SCORE}")
    api.post(f"{path}/custom:Score", {"value": "1"})


def test_an_expired_attribute_is_gone(place: tuple[Tailnet, User], node: Node, api: Api) -> None:
    path = f"/device/{node.pk}/attributes"
    api.post(f"{path}/{SCORE}", {"value": 1, "expiry": soon(days=1)})
    with scope(tailnet=place[0]):
        PostureAttribute.objects.update(expires=timezone.now() - timedelta(seconds=1))
    assert custom(api, node) == {}
    assert api.get(path)["expiries"] == {}
    assert api.refusal("DELETE", f"{path}/{SCORE}").status == 404
    api.post(f"{path}/custom:SCORE", {"value": "of another type"[:2]})
    assert custom(api, node) == {"custom:SCORE": "of"}
    with scope(tailnet=place[0]):
        assert PostureAttribute.objects.count() == 1


def test_a_device_has_only_so_many(node: Node, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.services.posture.MAX_ATTRIBUTES", 2)
    for number in range(2):
        api.post(f"/device/{node.pk}/attributes/custom:a{number}", {"value": number})
    assert api.refusal("POST", f"/device/{node.pk}/attributes/custom:a2", {"value": 2}).status == 409
    api.post(f"/device/{node.pk}/attributes/custom:a1", {"value": 3})
    assert custom(api, node) == {"custom:a0": 0, "custom:a1": 3}


def test_many_devices_at_once_all_or_none(place: tuple[Tailnet, User], node: Node, api: Api) -> None:
    second = factories.node(*place, hostname="second")
    api.post(f"/device/{node.pk}/attributes/custom:old", {"value": True})
    body = {
        "nodes": {
            node.stable_id: {SCORE: {"value": 1, "expiry": soon(days=2)}, "custom:old": None},
            str(second.pk): {SCORE: {"value": 2}, "custom:old": None},
        },
        "comment": "nightly",
    }
    assert api.patch(BATCH, body) == {}
    assert (custom(api, node), custom(api, second)) == ({SCORE: 1}, {SCORE: 2})
    assert [event.details for event in events(place[0])] == ["", "nightly", "nightly"]
    wrong = {"nodes": {node.stable_id: {SCORE: {"value": 7}}, second.stable_id: {SCORE: {"value": "x"}}}}
    assert api.refusal("PATCH", BATCH, wrong).status == 409
    assert api.refusal("PATCH", BATCH, {"nodes": {node.stable_id: {}, "no": {}}}).status == 404
    for bad in ({}, {"nodes": []}, {"nodes": {"x": 1}}, {"nodes": {"x": {"y": 1}}}, {"nodes": None}):
        assert api.refusal("PATCH", BATCH, bad).status == 400, bad
    assert (custom(api, node), custom(api, second)) == ({SCORE: 1}, {SCORE: 2})
    assert api.patch(BATCH, {"nodes": {}}) == {}


def test_one_call_changes_only_so_many(node: Node, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.services.posture.MAX_CHANGES", 2)
    body = {"nodes": {node.stable_id: {f"custom:a{number}": {"value": 1} for number in range(3)}}}
    assert api.refusal("PATCH", BATCH, body).status == 409
    assert custom(api, node) == {}


def test_who_may_set_and_see_them(place: tuple[Tailnet, User], node: Node) -> None:
    tailnet, owner = place
    other, stranger = people.tailnet(device_approval=False)
    foreign = factories.node(other, stranger)
    path = f"/device/{node.pk}/attributes"
    body = {"value": 1}
    reads = as_person(tailnet, owner, "devices:posture_attributes:read", "devices:core")
    assert reads.get(path)
    assert reads.refusal("POST", f"{path}/{SCORE}", body).status == 403
    assert reads.refusal("DELETE", f"{path}/{SCORE}").status == 403
    assert reads.refusal("PATCH", BATCH, {"nodes": {}}).status == 403
    assert as_person(tailnet, owner, "devices:core").refusal("GET", path).status == 403
    member = people.member(tailnet)
    own = factories.node(tailnet, member.user, hostname="own")
    assert (
        as_person(tailnet, member.user).refusal("POST", f"/device/{own.pk}/attributes/{SCORE}", body).status
        == 403
    )
    client = as_client(tailnet, "devices:posture_attributes")
    client.post(f"{path}/{SCORE}", body)
    assert client.refusal("GET", f"/device/{foreign.pk}/attributes").status == 404
    assert client.refusal("POST", f"/device/{foreign.pk}/attributes/{SCORE}", body).status == 404
    wanted = {"nodes": {node.stable_id: {SCORE: {"value": 5}}, foreign.stable_id: {SCORE: {"value": 5}}}}
    assert client.refusal("PATCH", BATCH, wanted).status == 404
    assert client.get(path)["attributes"][SCORE] == 1


def test_the_newest_number_a_reader_takes_exactly() -> None:
    assert posture.is_value(2**53 - 1)
    assert posture.is_value(-(2**53) + 1)
    assert not posture.is_value(2**53)
    assert not posture.is_value({})
