"""Who may give tags, and whose routes need no approval."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.netmap.snapshot import UserSnapshot
from tests.controlplane.policy.tailnets import ANN, BOB, EVE, EXIT, apply, node

POLICY: dict[str, Any] = {
    "groups": {"group:dev": ["bob@corp.example"]},
    "tagOwners": {
        "tag:web": ["group:dev"],
        "tag:db": ["tag:deploy"],
        "tag:deploy": ["autogroup:auditor"],
        "tag:admins": [],
    },
    "autoApprovers": {
        "routes": {
            "10.0.0.0/8": ["tag:web", "eve@guest.example"],
            "fd00::/8": ["group:dev"],
            "0.0.0.0/0": ["tag:db"],
        },
        "exitNode": ["tag:deploy"],
    },
}


@pytest.mark.parametrize(
    ("tag", "owner", "allowed"),
    [
        ("tag:web", {"user_id": BOB}, True),
        ("tag:web", {"user_id": EVE}, False),
        ("tag:web", {"user_id": ANN}, True),  # the owner of the tailnet owns every tag
        ("tag:admins", {"user_id": ANN}, True),
        ("tag:admins", {"user_id": BOB}, False),
        ("tag:unknown", {"user_id": ANN}, False),
        ("tag:db", {"tags": ["tag:deploy"]}, True),
        ("tag:db", {"tags": ["tag:db"]}, True),
        ("tag:db", {"tags": ["tag:web"]}, False),
        ("tag:db", {"user_id": ANN, "tags": ["tag:web"]}, False),  # what bears tags is nobody's
        ("tag:deploy", {"user_id": EVE}, True),
        ("tag:deploy", {}, False),
    ],
)
def test_tags_have_owners(tag: str, owner: dict[str, Any], allowed: bool) -> None:
    assert apply(POLICY).evaluation.may_own(tag, **owner) is allowed


@pytest.mark.parametrize(
    ("facts", "prefix", "allowed"),
    [
        ({"tags": ["tag:web"]}, "10.0.0.0/8", True),
        ({"tags": ["tag:web"]}, "10.1.2.0/24", True),
        ({"tags": ["tag:web"]}, "0.0.0.0/1", False),
        ({"tags": ["tag:web"]}, "11.0.0.0/24", False),
        ({"user": EVE}, "10.1.0.0/16", True),
        ({"user": EVE, "tags": ["tag:deploy"]}, "10.1.0.0/16", False),
        ({"user": BOB}, "fd00:1::/64", True),
        ({"user": BOB}, "10.1.0.0/16", False),
        ({"tags": ["tag:deploy"]}, EXIT[0], True),
        ({"tags": ["tag:deploy"]}, EXIT[1], True),
        ({"tags": ["tag:db"]}, "192.168.0.0/16", True),
        ({"tags": ["tag:db"]}, EXIT[0], False),  # exit nodes are approved by exitNode alone
    ],
)
def test_routes_are_approved_within_the_prefix(facts: dict[str, Any], prefix: str, allowed: bool) -> None:
    assert apply(POLICY).evaluation.approves(node(1, **facts), prefix) is allowed


def test_what_is_hardly_meant_is_a_warning() -> None:
    policy = {"groups": {"group:dev": ["zoe@corp.example"]}, "tagOwners": {}}
    checked = apply(policy, node(1, tags=["tag:old"]))
    assert checked.warnings == (
        "group:dev: zoe@corp.example is not a user of this tailnet",
        "tag:old is on devices, but not in tagOwners",
    )


def test_letters_that_fold_alike_name_two_people() -> None:
    """A device of the one is not the other's: worlds tell the logins apart as well."""
    one, other = (
        UserSnapshot(id=number, login_name=login, display_name="")
        for number, login in ((1, "stra\u00dfe@corp.example"), (2, "STRASSE@corp.example"))
    )
    policy = {"tagOwners": {"tag:web": [one.login_name]}}
    evaluation = apply(policy, users={1: one, 2: other}).evaluation
    assert [evaluation.may_own("tag:web", user_id=number) for number in (1, 2)] == [True, False]
