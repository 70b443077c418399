"""The sections ``ssh`` and ``sshTests``: what is taken, and in which words the rest is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.netmap.policy import hujson
from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.model import SSHRule, SSHTest
from controlplane.netmap.policy.parse_ssh import (
    CHECK_OF_TAGS,
    SAME_USER,
    SELF_OF_TAGS,
    parse_ssh,
    parse_ssh_tests,
)

TAGS = {"tag:web", "tag:db"}
MAYA = "maya@acme.test"
RULE: dict[str, Any] = {"action": "accept", "src": [MAYA], "dst": ["tag:web"], "users": ["root"]}
TEST: dict[str, Any] = {"src": MAYA, "dst": ["tag:web"], "accept": ["root"]}


def rule_of(**changes: Any) -> SSHRule:
    content = {name: value for name, value in (RULE | changes).items() if value is not ...}
    section = hujson.parse(json.dumps([content]))
    return parse_ssh(section, tags=TAGS, postures={"posture:fit"})[0]


def refusal(**changes: Any) -> str:
    with pytest.raises(PolicyError) as refused:
        rule_of(**changes)
    assert refused.value.offset is not None
    return refused.value.message


def ssh_test_of(**changes: Any) -> SSHTest:
    section = hujson.parse(json.dumps([TEST | changes]))
    return parse_ssh_tests(section, tags=TAGS)[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": ...}, "action must be specified"),
        ({"action": "Accept"}, '"Accept" is not a valid action'),
        ({"users": ...}, "users must be specified"),
        ({"users": None}, "users must be specified"),
        ({"users": []}, "users must be specified"),
        ({"users": ["deploy", " "]}, 'user "" is not valid'),
        ({"users": ["*"]}, 'user "*" is not valid'),
        ({"acceptEnv": ["LANG", ""]}, "acceptEnv values cannot be empty"),
        ({"dst": ["tag:gone"]}, 'tag not found: "tag:gone"'),
        ({"src": ["tag:gone"]}, 'tag not found: "tag:gone"'),
        ({"dst": ["printer"]}, 'invalid dst "printer"'),
        ({"dst": ["*"]}, 'invalid dst "*"'),
        ({"dst": ["100.64.0.7"]}, 'invalid dst "100.64.0.7"'),
        ({"dst": ["group:ops"]}, 'invalid dst "group:ops"'),
        ({"src": ["*"]}, 'invalid src "*"'),
        ({"src": ["100.64.0.7"]}, 'invalid src "100.64.0.7"'),
        ({"src": ["autogroup:self"]}, '"autogroup:self" is not allowed in src'),
        ({"dst": ["autogroup:internet"]}, '"autogroup:internet" is not allowed in dst'),
        ({"src": ["tag:db"], "dst": ["autogroup:self"]}, SELF_OF_TAGS),
        ({"src": ["autogroup:tagged"], "dst": ["autogroup:self"]}, SELF_OF_TAGS),
        ({"dst": ["noor@acme.test"]}, SAME_USER),
        ({"src": [MAYA, "noor@acme.test"], "dst": [MAYA]}, SAME_USER),
        ({"src": ["tag:db"], "dst": [MAYA]}, SAME_USER),
        ({"action": "check", "src": ["tag:db"]}, CHECK_OF_TAGS),
        ({"action": "check", "src": ["autogroup:tagged"]}, CHECK_OF_TAGS),
        ({"srcPosture": ["posture:gone"]}, 'srcPosture=posture not found: "posture:gone"'),
        ({"users": "root"}, "users must be a list"),
        ({"users": [7]}, "users entry must be a string"),
        ({"colour": "red"}, 'unknown field "colour"'),
    ],
)
def test_rule_that_is_refused(changes: dict[str, Any], message: str) -> None:
    assert refusal(**changes) == message


@pytest.mark.parametrize(
    ("period", "message"),
    [
        ("-5m", "checkPeriod -5m0s must be a positive duration"),
        ("0s", "checkPeriod 0s must be a positive duration"),
        ("169h", "checkPeriod 169h0m0s is above the max (168h)"),
        ("168h0.5s", "checkPeriod 168h0m0.5s is above the max (168h)"),
        ("1 week", 'time: unknown unit " week" in duration "1 week"'),
        ("Always", 'time: invalid duration "Always"'),
    ],
)
def test_check_period_that_is_refused(period: str, message: str) -> None:
    assert refusal(action="check", checkPeriod=period) == message


@pytest.mark.parametrize(
    ("period", "seconds"),
    [(..., None), (None, None), ("", None), ("always", 0), ("168h", 604800), ("45s", 45), ("1500ms", 2)],
)
def test_check_period_in_seconds(period: Any, seconds: int | None) -> None:
    assert rule_of(action="check", checkPeriod=period).check_period == seconds


def test_space_around_names_does_not_count() -> None:
    rule = rule_of(src=[f" {MAYA}\t"], dst=["tag:web "], users=[" root", "\tdeploy"])
    assert [source.text for source in rule.sources] == [MAYA]
    assert [target.text for target in rule.targets] == ["tag:web"]
    assert rule.users == ("root", "deploy")


def test_names_of_fields_count_in_any_case() -> None:
    text = '[{"Action": "accept", "SRC": ["Maya@acme.test"], "Dst": ["tag:web"], "Users": ["root"]}]'
    (rule,) = parse_ssh(hujson.parse(text), tags=TAGS, postures=())
    assert rule.sources[0].text == MAYA
    assert rule.users == ("root",)


def test_users_that_look_like_something_else_are_plain_names() -> None:
    odd = ["autogroup:self", "group:ops", "tag:web", "localpart:", "🚀"]
    assert rule_of(users=odd).users == tuple(odd)


def test_rule_may_have_no_sources_or_targets() -> None:
    assert rule_of(src=[]).sources == ()
    assert rule_of(dst=...).targets == ()


def test_people_may_reach_themselves() -> None:
    assert rule_of(dst=[MAYA]).targets[0].text == MAYA
    assert rule_of(src=["group:ops", "autogroup:members", "user:*@acme.test"], dst=["autogroup:self"]).sources


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"src": "autogroup:admin"}, 'SSH tests src contains disallowed element "autogroup:admin"'),
        ({"src": "*"}, 'SSH tests src contains disallowed element "*"'),
        ({"dst": ["100.64.0.0/16"]}, 'SSH tests dst contains disallowed element "100.64.0.0/16"'),
        ({"dst": ["autogroup:self"]}, 'SSH tests dst contains disallowed element "autogroup:self"'),
        ({"dst": ["tag:web:22"]}, 'SSH tests dst contains unknown tag "tag:web:22"'),
        ({"src": "tag:gone"}, 'SSH tests src contains unknown tag "tag:gone"'),
        ({"allow": ["root"]}, 'unknown field "allow"'),
        (
            {"srcPostureAttrs": {"node:os": ["linux"]}},
            'srcPostureAttrs["node:os"] must be a string, a number or a boolean',
        ),
    ],
)
def test_test_that_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as refused:
        ssh_test_of(**changes)
    assert refused.value.message == message


def test_test_keeps_what_it_asks() -> None:
    found = ssh_test_of(check=["root"], deny=["deploy"], srcPostureAttrs={"node:os": "linux"})
    assert (found.accept, found.check, found.deny) == (("root",), ("root",), ("deploy",))
    assert found.posture_attributes == {"node:os": "linux"}
