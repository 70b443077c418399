"""``sshTests``: what they take for right, and what they say when it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.netmap.policy.sshtests import run_ssh_tests
from controlplane.netmap.policy.testbench import MAX_STEPS
from tests.controlplane.policy.places import MAYA, NOOR, OTTO, world_of

RULES: list[dict[str, Any]] = [
    {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:web"], "users": ["autogroup:nonroot"]},
    {"action": "check", "src": [MAYA, "group:oncall"], "dst": ["tag:web"], "users": ["root"]},
    {"action": "accept", "src": ["tag:ci"], "dst": ["tag:web", "tag:db"], "users": ["deploy"]},
    {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["root"]},
    {"action": "accept", "src": [NOOR], "dst": ["tag:db"], "users": ["localpart:*@acme.test"]},
    {
        "action": "accept",
        "src": [OTTO],
        "dst": ["tag:db"],
        "users": ["root"],
        "srcPosture": ["posture:mac"],
    },
]
MORE = """, "groups": {"group:two": ["maya@acme.test", "otto@partner.test"], "group:none": []},
    "hosts": {"front": "100.64.0.5", "back": "fd7a:115c:a1e0::6", "office": "10.0.0.0/8",
              "nowhere": "10.0.0.1"},
    "postures": {"posture:mac": ["node:os == 'macos'"]}"""


def errors_of(**test: Any) -> tuple[str, ...]:
    test = {"src": MAYA, "dst": ["tag:web"]} | test
    world = world_of(f'"ssh": {json.dumps(RULES)}, "sshTests": [{json.dumps(test)}] {MORE}')
    failures = run_ssh_tests(world)
    assert all(failure.is_ssh and failure.source == test["src"] for failure in failures)
    return failures[0].errors if failures else ()


@pytest.mark.parametrize(
    "test",
    [
        {"accept": ["deploy"], "check": ["root"]},
        {"src": OTTO, "accept": ["anybody"], "deny": ["root"]},
        {"src": "group:oncall", "check": ["root"]},
        {"src": "tag:ci", "dst": ["tag:web", "tag:db"], "accept": ["deploy"], "deny": ["root"]},
        {"src": "tag:db", "deny": ["deploy", "root"]},
        {"src": NOOR, "dst": ["tag:db"], "accept": ["noor"], "deny": ["maya", "root"]},
        # the same person's devices, and those of somebody else
        {"dst": [MAYA], "accept": ["root"]},
        {"dst": [NOOR], "deny": ["root"]},
        {"dst": ["tag:web"], "src": "nobody@acme.test", "deny": ["root", "deploy"]},
        # devices by their address, whichever family the host has
        {"src": "100.64.0.1", "check": ["root"]},
        {"dst": ["front", "100.64.0.7"], "check": ["root"]},
        {"src": "tag:ci", "dst": ["back"], "accept": ["deploy"]},
        {"dst": ["nowhere"], "deny": ["root"]},
        # what the source is like is for the test to say
        {"src": OTTO, "dst": ["tag:db"], "deny": ["root"]},
        {"src": OTTO, "dst": ["tag:db"], "accept": ["root"], "srcPostureAttrs": {"node:os": "macos"}},
        {"src": "group:none", "accept": ["root"]},
        {},
    ],
)
def test_what_is_so_passes(test: dict[str, Any]) -> None:
    assert errors_of(**test) == ()


@pytest.mark.parametrize(
    ("test", "errors"),
    [
        ({"accept": ["root"]}, ('as "root" on "tag:web": want: accept, got: check',)),
        ({"check": ["deploy"]}, ('as "deploy" on "tag:web": want: check, got: accept',)),
        ({"deny": ["root"]}, ('as "root" on "tag:web": want: deny, got: check',)),
        ({"src": "group:two", "check": ["root"]}, ('as "root" on "tag:web": want: check, got: deny',)),
        (
            {"src": NOOR, "dst": [NOOR], "deny": ["noor"]},
            ('as "noor" on "noor@acme.test": want: deny, got: accept',),
        ),
        ({"accept": [""]}, ('user "" is not valid in accept',)),
        ({"src": "group:gone", "deny": ["root"]}, ('group not found: "group:gone"',)),
        ({"src": ""}, ("src must be specified",)),
        ({"dst": ["printer"], "deny": ["root"]}, ('"printer" is no user, group, tag or host',)),
        ({"dst": ["office"], "deny": ["root"]}, ('"office" is a network: name a host with one address',)),
        (
            {"dst": ["fd7a:115c:a1e0::5"], "check": ["root"]},
            ('dst "fd7a:115c:a1e0::5": an IPv6 address cannot be tested: give it a name in hosts',),
        ),
        (
            {"dst": ["tag:web", "tag:db"], "check": ["root"]},
            ('as "root" on "tag:db": want: check, got: deny',),
        ),
    ],
)
def test_what_is_not_so_fails_and_says_what_is(test: dict[str, Any], errors: tuple[str, ...]) -> None:
    assert errors_of(**test) == errors


def test_so_many_errors_are_told_and_no_more() -> None:
    assert len(errors_of(deny=[f"user{number}" for number in range(100)])) == 20


def test_they_are_counted() -> None:
    logins = json.dumps([f"person-{number}@acme.test" for number in range(2_000)])
    rule = {"action": "accept", "src": ["group:all"], "dst": ["tag:web"], "users": ["root"]}
    test = {"src": "group:all", "dst": ["tag:web"], "accept": ["root"]}
    world = world_of(
        f'"ssh": {json.dumps([rule] * 50)}, "sshTests": {json.dumps([test] * 50)}, '
        f'"groups": {{"group:all": {logins}}}'
    )
    failures = run_ssh_tests(world)
    assert failures, "all hold, but they are too many"
    assert failures[-1].errors == (f"the tests need more than {MAX_STEPS} steps: make them fewer",)
    assert len(failures) < 50, "none is begun after that"
