"""The section ``tests``: what it asks of the rules, and what it says when they are not so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.controlplane.policy.tailnets import ANN, BOB, EVE, apply, node

RULES: dict[str, Any] = {
    "groups": {"group:dev": ["bob@corp.example", "eve@guest.example"], "group:none": []},
    "hosts": {"box": "100.64.1.5", "far": "192.0.2.7", "net": "10.0.0.0/8"},
    "tagOwners": {"tag:web": [], "tag:db": []},
    "postures": {"posture:linux": ["node:os == 'linux'"]},
    "acls": [
        {"action": "accept", "src": ["group:dev"], "dst": ["tag:web:80-90", "far:443"]},
        {"action": "accept", "src": ["ann@corp.example"], "dst": ["*:22"], "proto": "tcp"},
        {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]},
        {"action": "accept", "src": ["tag:web"], "dst": ["tag:db:5432"]},
        {"action": "accept", "src": ["tag:db"], "dst": ["far:53"], "proto": "udp"},
        {
            "action": "accept",
            "src": ["eve@guest.example"],
            "dst": ["tag:db:9"],
            "srcPosture": ["posture:linux"],
        },
    ],
}
NODES = (node(1, user=ANN), node(2, user=BOB), node(3, user=EVE), node(5, tags=["tag:web"]))


def errors(**test: Any) -> list[str]:
    """What a test of these rules says, in a tailnet in which nobody has tag:db."""
    checked = apply({**RULES, "tests": [test]}, *NODES)
    return [error for failure in checked.failures for error in failure.errors]


@pytest.mark.parametrize(
    "test",
    [
        {"src": "bob@corp.example", "accept": ["tag:web:80", "box:90", "far:443", "192.0.2.7:443"]},
        {"src": "bob@corp.example", "deny": ["tag:web:22", "tag:db:5432", "ann@corp.example:22", "far:1"]},
        {"src": "group:dev", "accept": ["tag:web:85"], "deny": ["tag:db:80"]},
        {"src": "ann@corp.example", "accept": ["group:dev:22", "198.51.100.1:22"], "proto": "tcp"},
        {"src": "ann@corp.example", "deny": ["box:22"], "proto": "udp"},
        {"src": "ann@corp.example", "accept": ["box:22"]},
        {"src": "bob@corp.example", "accept": ["autogroup:self:1", "100.64.1.2:7"], "deny": ["100.64.1.1:7"]},
        {"src": "tag:web", "accept": ["tag:db:5432"]},
        {"src": "100.64.1.5", "accept": ["tag:db:5432"]},
        {"src": "tag:db", "accept": ["far:53"], "proto": "udp"},
        {"src": "tag:db", "accept": ["far:53"], "proto": "17"},
        {"src": "eve@guest.example", "deny": ["tag:db:9"]},
        {"src": "eve@guest.example", "accept": ["tag:db:9"], "srcPostureAttrs": {"node:os": "linux"}},
        {"src": "group:none", "deny": ["tag:web:80"]},
        {"user": "bob@corp.example", "allow": ["tag:web:80"]},
    ],
)
def test_what_is_so_passes(test: dict[str, Any]) -> None:
    assert errors(**test) == []


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (
            {"src": "bob@corp.example", "accept": ["tag:db:5432"]},
            'address "tag:db:5432": want: Accept, got: Drop',
        ),
        (
            {"src": "bob@corp.example", "deny": ["tag:web:80"]},
            'address "tag:web:80": want: Drop, got: Accept',
        ),
        ({"src": "autogroup:member", "accept": ["box:80"]}, 'address "box:80": want: Accept, got: Drop'),
        ({"src": "group:none", "accept": ["box:80"]}, 'address "box:80": want: Accept, got: Drop'),
        (
            {"src": "tag:db", "accept": ["far:53"], "proto": "tcp"},
            'address "far:53": want: Accept, got: Drop',
        ),
        ({"src": "ann@corp.example"}, "accept or deny must be specified"),
        ({"accept": ["box:1"]}, "src must be specified"),
        ({"src": "group:b", "accept": ["box:1"]}, 'group not found: "group:b"'),
        ({"src": "tag:b", "deny": ["box:1"]}, 'tag not found: "tag:b"'),
        ({"src": "*", "accept": ["box:1"]}, 'src "*" is nobody in particular'),
        ({"src": "ann@corp.example", "deny": ["net:1"]}, 'address "net:1": "net" is not one address'),
        (
            {"src": "ann@corp.example", "deny": ["10.0.0.1/32:1"]},
            'address "10.0.0.1/32:1": "10.0.0.1/32" is not one address',
        ),
        ({"src": "ann@corp.example", "deny": ["b:1"]}, 'address "b:1": host not found: "b"'),
        ({"src": "ann@corp.example", "deny": ["box"]}, 'address "box": a port must be specified'),
        (
            {"src": "ann@corp.example", "deny": ["box:*"]},
            'address "box:*": port range "*": a test needs one port',
        ),
        (
            {"src": "ann@corp.example", "deny": ["autogroup:internet:1"]},
            'address "autogroup:internet:1": "autogroup:internet" cannot be tested',
        ),
        (
            {"src": "tag:web", "deny": ["autogroup:self:1"]},
            'address "autogroup:self:1": autogroup:self is for people in src only',
        ),
        ({"src": "ann@corp.example", "deny": ["box:1"], "proto": "b"}, 'unknown protocol "b"'),
    ],
)
def test_what_is_not_so_is_said(test: dict[str, Any], message: str) -> None:
    assert errors(**test) == [message]


def test_a_failing_test_is_told_with_its_source() -> None:
    tests = [{"src": "tag:web", "accept": ["tag:db:5432"]}, {"src": "tag:db", "accept": ["tag:web:1"]}]
    (failure,) = apply({**RULES, "tests": tests}, *NODES).failures
    assert failure.source == "tag:db"
    assert not failure.is_ssh
