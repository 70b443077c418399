"""What devices meet: conditions as they are written, and as they are held against devices."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.netmap.policy import hujson
from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.model import Assertion, Policy
from controlplane.netmap.policy.parse_postures import parse_assertion, parse_posture_names, parse_postures
from controlplane.netmap.policy.postures import compare_versions, holds, meets

LAPTOP: dict[str, Any] = {
    "node:os": "macos",
    "node:osVersion": "14.2.1",
    "node:tsVersion": "1.98.0",
    "node:tsAutoUpdate": True,
    "custom:tier": "gold",
    "custom:score": 71,
}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("node:os == 'macos'", True),
        ("node:os == 'linux'", False),
        ('node:os != "linux"', True),
        ("node:os IN ['linux', 'macos']", True),
        ("node:os NOT IN ['linux','windows',]", True),
        ("node:os  NOT  IN ['macos']", False),
        ("node:osVersion >= '9.10'", True),
        ("node:osVersion < '14.10'", True),
        ("node:osVersion == '14.2.1'", True),
        ("node:tsVersion>='1.100'", False),
        ("node:tsAutoUpdate", True),
        ("node:tsAutoUpdate == false", False),
        ("custom:score >= 70", True),
        ("custom:score < 70.5", False),
        ("custom:score == '71'", False),
        ("custom:score != '71'", True),
        ("custom:tier IS SET", True),
        ("custom:tier NOT SET", False),
        ("custom:badge NOT SET", True),
        ("custom:badge IS SET", False),
        # of what is not known, nothing holds, a negation neither
        ("custom:badge != 'red'", False),
        ("custom:badge NOT IN ['red']", False),
        ("custom:badge", False),
    ],
)
def test_condition_against_a_device(condition: str, expected: bool) -> None:
    assert holds(parse_assertion(condition), LAPTOP) is expected


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("node:os = 'linux'", "not a posture condition"),
        ("os == 'linux'", "not a posture condition"),
        ("node:os == linux", "strings are written in quotes"),
        ("node:os == 'linux' && node:tsAutoUpdate", "not a value"),
        ("node:os < 'linux'", "compares numbers"),
        ("custom:tier >= true", "compares numbers"),
        ("node:os IN []", "the list is empty"),
        ("node:os IN ['linux' 'macos']", "not a list of values"),
        ("node:os in ['linux']", "not a posture condition"),
        ("", "not a posture condition"),
    ],
)
def test_condition_that_means_nothing_is_refused_at_its_place(condition: str, said: str) -> None:
    text = f'{{"posture:x": ["node:os IS SET", "{condition}"]}}'
    with pytest.raises(PolicyError, match=re.escape(said)) as refused:
        parse_postures(hujson.parse(text))
    assert refused.value.offset == text.index(f'"{condition}"')


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.9", "1.10"),
        ("12", "12.0"),
        ("1.40", "1.40.1"),
        ("5.10.0-17-amd64", "5.10.0-18-amd64"),
        ("", "0.1"),
    ],
)
def test_versions_are_ordered_by_their_numbers(older: str, newer: str) -> None:
    assert compare_versions(older, newer) < 0 < compare_versions(newer, older)


@given(*[st.text(st.sampled_from("0123.-ab"), max_size=12)] * 3)
def test_versions_have_one_order(one: str, two: str, three: str) -> None:
    assert compare_versions(one, one) == 0
    assert compare_versions(one, two) == -compare_versions(two, one)
    if compare_versions(one, two) <= 0 and compare_versions(two, three) <= 0:
        assert compare_versions(one, three) <= 0


def test_rule_is_met_by_any_of_its_postures_and_all_of_that_ones_conditions() -> None:
    policy = Policy(
        postures={
            "posture:mac": (Assertion("node:os", "==", "macos"), Assertion("node:tsVersion", ">=", "2.0")),
            "posture:gold": (Assertion("custom:tier", "==", "gold"),),
        }
    )
    assert not meets(policy, ["posture:mac"], LAPTOP)
    assert meets(policy, ["posture:mac", "posture:gold"], LAPTOP)
    assert not meets(policy, ["posture:gone"], LAPTOP)
    assert meets(policy, [], {})


def test_default_posture_counts_only_where_a_rule_asks_for_none() -> None:
    gold = (Assertion("custom:tier", "==", "gold"),)
    mac = (Assertion("node:os", "==", "macos"),)
    policy = Policy(
        postures={"posture:gold": gold, "posture:mac": mac}, default_source_posture=("posture:gold",)
    )
    assert not meets(policy, [], {"node:os": "macos"})
    assert meets(policy, ["posture:mac"], {"node:os": "macos"})


def test_posture_that_is_not_defined_is_refused() -> None:
    value = hujson.parse('["posture:mac", "posture:mca"]')
    with pytest.raises(PolicyError, match='posture not found: "posture:mca"'):
        parse_posture_names(value, {"posture:mac"}, "srcPosture")
    assert parse_posture_names(None, set(), "srcPosture") == ()


@pytest.mark.parametrize("text", ['{"mac": ["node:os IS SET"]}', '{"posture:": ["node:os IS SET"]}'])
def test_posture_has_a_name_of_its_kind(text: str) -> None:
    with pytest.raises(PolicyError, match='must start with "posture:"'):
        parse_postures(hujson.parse(text))


def test_posture_without_conditions_is_refused() -> None:
    with pytest.raises(PolicyError, match="at least one condition"):
        parse_postures(hujson.parse('{"posture:x": []}'))
