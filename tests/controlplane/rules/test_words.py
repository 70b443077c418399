"""Rules in words."""

from __future__ import annotations

import pytest

from controlplane.rules.words import (
    acl_targets,
    conditions,
    grant_targets,
    phrase,
    ports_in_words,
    split_ports,
    ssh_targets,
    traffic_in_words,
)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("*", "everyone"),
        ("group:eng", "people in group:eng"),
        ("tag:db", "devices with tag:db"),
        ("autogroup:member", "all members"),
        ("autogroup:something-new", "the host autogroup:something-new"),
        ("ipset:office", "addresses in ipset:office"),
        ("ana@example.com", "ana@example.com"),
        ("user:*@example.com", "everybody of example.com"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9"),
        ("fd7a::1", "fd7a::1"),
        ("printer", "the host printer"),
    ],
)
def test_names_are_said_as_what_they_are(name: str, words: str) -> None:
    assert phrase(name).words == words
    assert phrase(name).name == name


@pytest.mark.parametrize(
    ("destination", "parts"),
    [
        ("tag:db:5432", ("tag:db", "5432")),
        ("*:*", ("*", "*")),
        ("10.0.0.0/8:80,443", ("10.0.0.0/8", "80,443")),
        ("[fd7a::1]:22", ("fd7a::1", "22")),
    ],
)
def test_destinations_are_parted_from_their_ports(destination: str, parts: tuple[str, str]) -> None:
    assert split_ports(destination) == parts


@pytest.mark.parametrize(
    ("ports", "words"),
    [("*", "any port"), ("22", "port 22"), ("80,443", "ports 80, 443"), ("8000-8100", "ports 8000-8100")],
)
def test_ports_in_words(ports: str, words: str) -> None:
    assert ports_in_words(ports) == words


@pytest.mark.parametrize(
    ("capability", "words"),
    [
        ("*", "any port and protocol"),
        ("443", "port 443"),
        ("tcp:443", "TCP port 443"),
        ("icmp:*", "ICMP"),
        ("47:*", "IP protocol 47"),
        ("udp:*", "UDP any port"),
    ],
)
def test_what_a_grant_opens_in_words(capability: str, words: str) -> None:
    assert traffic_in_words(capability) == words


def test_an_access_rule_says_its_protocol_with_its_ports() -> None:
    rule = {"src": ["group:eng"], "dst": ["tag:db:5432", "tag:web:*"], "proto": "tcp"}
    assert [(one.who.words, one.ports) for one in acl_targets(rule)] == [
        ("devices with tag:db", "port 5432, TCP"),
        ("devices with tag:web", "TCP"),
    ]


def test_a_grant_of_capabilities_alone_names_them() -> None:
    rule = {"src": ["*"], "dst": ["tag:db"], "app": {"example.com/cap/x": [{}]}, "via": ["tag:router"]}
    assert [one.ports for one in grant_targets(rule)] == [""]
    assert conditions("grants", rule) == ["only via tag:router", "capability example.com/cap/x"]


def test_an_ssh_rule_says_as_whom_and_when_one_signs_in_again() -> None:
    rule = {
        "action": "check",
        "dst": ["tag:db"],
        "users": ["autogroup:nonroot", "root", "localpart:*@example.com"],
        "checkPeriod": "always",
    }
    assert [one.ports for one in ssh_targets(rule)] == ["as any user, the name before the @ of *@example.com"]
    for users, said in (
        (["autogroup:nonroot"], "as any user but root"),
        (["root", "autogroup:nonroot"], "as any user"),
        (["root", "deploy"], "as root, deploy"),
    ):
        assert [one.ports for one in ssh_targets(rule | {"users": users})] == [said]
    assert conditions("ssh", rule) == ["signs in again each time"]
    assert conditions("ssh", {"action": "check"}) == ["signs in again after 12h"]
    assert conditions("ssh", {"action": "accept"}) == []
