"""Policies that are large, deep or spiteful are handled or refused; none takes long."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.parse import parse_policy
from controlplane.netmap.policy.parse_names import MAX_IPSET_RANGES, MAX_IPSET_TURNS
from controlplane.netmap.policy.subjects import of_group
from controlplane.netmap.policy.testbench import MAX_STEPS
from controlplane.netmap.policy.tests import run_tests
from controlplane.netmap.policy.world import World
from controlplane.netmap.snapshot import UserSnapshot
from tests.controlplane.policy.tailnets import ANN, apply, grants, node, peers

MANY = 100_000


def refusal(policy: dict[str, Any]) -> str:
    with pytest.raises(PolicyError) as caught:
        parse_policy(json.dumps(policy))
    return caught.value.message


def test_nothing_at_all_is_no_policy() -> None:
    with pytest.raises(PolicyError):
        parse_policy("")


@pytest.mark.parametrize("text", ["[" * MANY, '{"acls":' + "[" * MANY, "/*" * MANY, '{"a":' * MANY])
def test_depth_is_bounded(text: str) -> None:
    with pytest.raises(PolicyError):
        parse_policy(text)


def test_ten_megabytes_are_refused() -> None:
    with pytest.raises(PolicyError, match="bytes"):
        parse_policy('{"acls": [' + " " * 10_000_000 + "]}")


def test_a_hundred_thousand_names_are_handled() -> None:
    logins = [f"person-{number}@corp.example" for number in range(MANY)]
    policy = grants({"src": ["group:all"], "dst": ["*"]}, groups={"group:all": [*logins, "ann@corp.example"]})
    checked = apply(policy, node(1, user=ANN), node(2, tags=["tag:a"]))
    assert peers(checked, 1) == {2}
    assert len(checked.warnings) < 100


def test_a_hundred_thousand_tags_are_handled() -> None:
    owners: dict[str, list[str]] = {f"tag:t{number}": [] for number in range(MANY)}
    checked = apply(
        grants({"src": ["tag:t5"], "dst": ["tag:t99999"]}, tagOwners=owners), node(1, tags=["tag:t5"])
    )
    assert peers(checked, 1) == set()


def test_ip_sets_cannot_multiply() -> None:
    many = [f"10.{number >> 7}.{(number & 127) * 2}.0/24" for number in range(20_000)]
    sets = {"ipset:0": many} | {f"ipset:{number}": [f"ipset:{number - 1}"] for number in range(1, 100)}
    assert refusal({"ipsets": sets}) == f"IP sets hold more than {MAX_IPSET_RANGES} ranges in all"
    turns = ["add 10.0.0.0/8", "remove 10.1.0.0/16"] * MAX_IPSET_TURNS
    expected = f'ipsets["ipset:a"]: more than {MAX_IPSET_TURNS} turns of add and remove'
    assert refusal({"ipsets": {"ipset:a": turns}}) == expected


def test_deep_ip_sets_are_refused() -> None:
    sets = {f"ipset:{number}": [f"ipset:{number + 1}"] for number in range(1_000)} | {"ipset:1000": []}
    assert refusal({"ipsets": sets}).endswith("IP sets cannot be recursive")


def test_tests_are_counted() -> None:
    logins = [f"person-{number}@corp.example" for number in range(5_000)]
    policy = grants({"src": ["*"], "dst": ["*"]}, groups={"group:all": logins})
    policy["tests"] = [{"src": "group:all", "accept": ["group:all:22"]}] * 10
    (failure,) = apply(policy, node(1, user=ANN)).failures
    assert f"the tests need more than {MAX_STEPS} steps: make them fewer" in failure.errors[0]


class Counted(dict[int, UserSnapshot]):
    """People, and how many were looked at."""

    looked_at = 0

    def values(self) -> Any:
        for user in super().values():
            self.looked_at += 1
            yield user


def test_people_are_not_searched_for_each_of_a_group() -> None:
    people = Counted(
        {
            number: UserSnapshot(id=number, login_name=f"p{number}@corp.example", display_name="")
            for number in range(1, 1_001)
        }
    )
    groups = {"group:all": [user.login_name for user in list(people.values())]}
    tests = [
        {"src": "autogroup:member", "accept": ["tag:a:22"]},
        {"src": "group:all", "accept": ["tag:a:22"]},
    ]
    rule = {"action": "accept", "src": ["*"], "dst": ["*:*"]}
    policy = parse_policy(
        json.dumps({"acls": [rule], "groups": groups, "tagOwners": {"tag:a": []}, "tests": tests})
    )
    people.looked_at = 0
    assert len(of_group("group:all", policy, people)) == len(people)
    assert run_tests(World.of(policy, {}, people)) == []
    assert people.looked_at < 10 * len(people)


def test_filters_are_the_same_as_json() -> None:
    checked = apply(
        grants({"src": ["autogroup:member"], "dst": ["*"]}), node(1, user=ANN), node(2, tags=["tag:a"])
    )
    for number in (1, 2):
        assert orjson.loads(checked.evaluation.filter_json(number)) == checked.evaluation.filter_of(number)
    assert checked.evaluation.filter_json(9) == b"[]"
