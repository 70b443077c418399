"""What policies are refused for, in which words, and at which place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.parse import parse_policy
from tests.controlplane.policy.tailnets import ANN, apply, node

SELF = "autogroup:self can only be used with users, groups, or supported autogroups"


def refusal(policy: dict[str, Any]) -> str:
    with pytest.raises(PolicyError) as caught:
        apply({"tagOwners": {"tag:a": []}, **policy}, node(1, user=ANN))
    assert caught.value.at is not None
    return caught.value.message


def acl(**members: Any) -> dict[str, Any]:
    return {"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"], **members}]}


def grant(**members: Any) -> dict[str, Any]:
    return {"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"], **members}]}


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (acl(src=["tag:b"]), 'src=tag not found: "tag:b"'),
        (acl(dst=["tag:b:22"]), 'dst="tag:b": tag not found: "tag:b"'),
        (acl(src=["group:b"]), 'src=group not found: "group:b"'),
        (acl(src=["ipset:b"]), 'src=ipset not found: "ipset:b"'),
        (acl(src=["box"]), 'src=host not found: "box"'),
        (acl(src=["autogroup:self"]), '"autogroup:self" not valid on the src side of a rule'),
        (acl(src=["autogroup:internet"]), '"autogroup:internet" not valid on the src side of a rule'),
        (acl(src=["autogroup:b"]), 'autogroup not found: "autogroup:b"'),
        (acl(dst=["autogroup:nonroot:*"]), '"autogroup:nonroot" not valid on the dst side of a rule'),
        (acl(dst=["tag:a:ssh"]), 'dst="tag:a:ssh": port range "ssh": invalid first integer'),
        (acl(dst=["tag:a:1-x"]), 'dst="tag:a:1-x": port range "1-x": invalid last integer'),
        (acl(dst=["tag:a:70000"]), 'dst="tag:a:70000": port range "70000": invalid first integer'),
        (acl(dst=["tag:a:9-1"]), 'dst="tag:a:9-1": port range "9-1": first port must be <= last port'),
        (acl(dst=["*"]), 'dst="*": ports must be specified, as in "*:*"'),
        (acl(dst=["autogroup:self:*"], src=["tag:a"]), SELF),
        (acl(action="drop"), '"drop" is not a valid action'),
        (acl(action=None), "action must be specified"),
        (acl(proto="foo"), 'proto: unknown protocol "foo"'),
        (
            acl(proto="icmp", dst=["*:22"]),
            "dst=\"*:22\": only tcp, udp and sctp have ports: use '*' with other protocols",
        ),
        (acl(srcPosture=["posture:b"]), 'srcPosture=posture not found: "posture:b"'),
        (acl(source=["*"]), 'unknown field "source"'),
        (grant(dst=["tag:b"]), 'dst="tag:b": tag not found: "tag:b"'),
        (grant(dst=["autogroup:self"]), SELF),
        (grant(dst=["autogroup:self"], src=["autogroup:tagged"]), SELF),
        (grant(dst=["autogroup:danger-all"]), "cannot use autogroup:danger-all as a dst"),
        (grant(ip=[]), "ip and app can not both be empty"),
        (grant(ip=["icmp"]), 'port range "icmp": invalid first integer'),
        (
            grant(ip=["udp:0"]),
            "port range \"0\": first port must be >0, or use '*' for wildcard",
        ),
        (grant(ip=["foo:1"]), 'unknown protocol "foo"'),
        (grant(ip=["256:*"]), 'unknown protocol "256"'),
        (grant(via=["autogroup:tagged"]), "via can only be a tag"),
        (grant(via=["tag:a", "tag:b"]), 'tag "tag:b" not found'),
        (grant(app={"cap": [{}]}), "capability name must have the form {domain}/{path}"),
        (grant(app={"http://a.example/b": [{}]}), "capability name must have the form {domain}/{path}"),
        (
            grant(app={"tailscale.com/cap/is-owner": [{}]}),
            "capability name must not be in the tailscale.com domain",
        ),
        (
            grant(dst=["autogroup:internet"], app={"a.example/b": [{}]}),
            "cannot use app grants with autogroup:internet",
        ),
        (
            grant(dst=["0.0.0.0/0"]),
            'dst "0.0.0.0/0": to allow all IP addresses, use "*" or "autogroup:internet"',
        ),
        (
            grant(src=["user:*@gmail.com"]),
            "gmail.com is not associated with this Tailnet and cannot be used in user:*@<domain> expressions",
        ),
        (
            {"groups": {"group:a": ["group:b"]}},
            'groups["group:a"]: "group:b": group members cannot be recursive',
        ),
        ({"groups": {"a": []}}, 'groups["a"]: group names must start with "group:"'),
        ({"groups": {"group:a": ["tag:a"]}}, 'groups["group:a"]: "tag:a": group members must be users'),
        (
            {"tagOwners": {"tag:1": []}},
            "tagOwners[\"tag:1\"]: tag names must start with a letter, after 'tag:'",
        ),
        ({"tagOwners": {"a": []}}, "tagOwners[\"a\"]: tag names must start with 'tag:'"),
        ({"tagOwners": {"tag:a": ["tag:b"]}}, 'tagOwners["tag:a"]: tag not found: "tag:b"'),
        (
            {"tagOwners": {"tag:a": ["10.0.0.1"]}},
            'tagOwners["tag:a"]: "10.0.0.1": a user, group, autogroup or tag expected',
        ),
        ({"hosts": {"a": "b"}}, 'hosts["a"]: "b": invalid address'),
        ({"hosts": {"a": 1}}, 'hosts["a"] must be a string'),
        ({"ipsets": {"ipset:a": ["ipset:a"]}}, 'ipsets["ipset:a"]: IP sets cannot be recursive'),
        (
            {"ipsets": {"ipset:a": ["tag:a"]}},
            'ipsets["ipset:a"]: "tag:a": an address, prefix, range, host or IP set expected',
        ),
        ({"autoApprovers": {"routes": {"10.0.0.0/99": []}}}, 'routes["10.0.0.0/99"]: invalid prefix'),
        ({"autoApprovers": {"exitNode": ["tag:b"]}}, 'exitNode: tag not found: "tag:b"'),
        (
            {"oneCGNATRoute": "never"},
            'oneCGNATRoute: "never" is not valid; use "mac-always", "mac-never" or ""',
        ),
        ({"randomizeClientPort": 1}, "randomizeClientPort must be true or false"),
        ({"rules": []}, 'unknown field "rules"'),
        ({"acls": {}}, "acls must be a list"),
    ],
)
def test_refusals_say_what_is_wrong(policy: dict[str, Any], message: str) -> None:
    assert refusal(policy) == message


def test_the_place_is_that_of_the_word() -> None:
    text = '{\n  "tagOwners": {"tag:a": []},\n  // closed\n  "grants": [\n    {"src": ["tag:a", "tag:b"]'
    with pytest.raises(PolicyError) as caught:
        parse_policy(text + ', "dst": ["*"], "ip": ["*"]}]}')
    assert caught.value.at == (5, 23)


def test_what_is_no_hujson_is_refused_at_its_place() -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy('{\n  "acls": [,]\n}')
    assert caught.value.at == (2, 12)


def test_names_of_fields_count_in_any_case_and_old_ones_are_known() -> None:
    old = '{"ACLs": [{"Action": "accept", "Users": ["*"], "Ports": ["*:22"]}], "Hosts": {"a": "10.0.0.1"}}'
    new = '{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:22"]}], "hosts": {"a": "10.0.0.1"}}'
    (one,), (other,) = parse_policy(old).rules, parse_policy(new).rules
    assert [target.services for target in one.targets] == [target.services for target in other.targets]
    assert parse_policy(old).hosts == parse_policy(new).hosts


def test_an_owner_may_be_a_tag_that_comes_later() -> None:
    policy = parse_policy(json.dumps({"tagOwners": {"tag:a": ["tag:b"], "tag:b": []}}))
    assert [owner.text for owner in policy.tag_owners["tag:a"]] == ["tag:b"]


def test_groups_are_not_judged_where_the_provider_is_not_known() -> None:
    text = json.dumps(grant(src=["group:ops"]))
    assert parse_policy(text).rules
    assert parse_policy(text, {"group:ops"}).rules
    with pytest.raises(PolicyError):
        parse_policy(text, set())
