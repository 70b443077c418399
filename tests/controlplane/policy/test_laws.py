"""Laws of the evaluation, in generated tailnets under generated policies, through generated histories."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.parse import parse_policy
from controlplane.netmap.snapshot import NodeSnapshot, Standing, TailnetSnapshot, UserSnapshot
from tests.controlplane.policy.tailnets import ANN, EVE, EXIT, PEOPLE, node, tailnet

TAGS = ("tag:web", "tag:db", "tag:edge")
SUBNETS = ("10.1.0.0/16", "10.1.2.0/24", "192.168.7.0/24", "fd00:7::/64")
NUMBERS = range(1, 8)
SECTIONS: dict[str, Any] = {
    "groups": {"group:dev": ["bob@corp.example", "eve@guest.example"], "group:none": []},
    "hosts": {"office": "10.1.0.0/16", "printer": "192.168.7.9", "first": "100.64.1.1"},
    "ipsets": {
        "ipset:net": ["add autogroup:internet", "remove 8.8.8.0/24"],
        "ipset:two": ["office", "first"],
    },
    "tagOwners": {tag: [] for tag in TAGS},
    "postures": {"posture:ok": ["node:os == 'linux'"]},
}
PEOPLE_TEXTS = (
    "ann@corp.example",
    "bob@corp.example",
    "group:dev",
    "group:none",
    "user:*@corp.example",
    "autogroup:member",
    "autogroup:admin",
    "autogroup:auditor",
    "group:from-provider",
)
SOURCES = (
    *PEOPLE_TEXTS,
    *TAGS,
    "*",
    "autogroup:tagged",
    "autogroup:danger-all",
    "office",
    "first",
    "ipset:two",
    "100.64.1.0/30",
)
TARGETS = (
    *PEOPLE_TEXTS,
    *TAGS,
    "*",
    "autogroup:tagged",
    "autogroup:internet",
    "office",
    "printer",
    "first",
    "ipset:net",
    "ipset:two",
    "100.64.1.2-100.64.1.5",
)
SSH_PEOPLE = ("bob@corp.example", "group:dev", "autogroup:member", "user:*@corp.example")
SERVICES = ("*", "22", "tcp:80-443", "udp:53", "icmp:*")


def some(texts: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(texts), min_size=1, max_size=3, unique=True)


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    rule: dict[str, Any] = {"ip": draw(some(SERVICES))}
    if draw(st.integers(0, 4)) == 0:
        return rule | {"src": draw(some(PEOPLE_TEXTS)), "dst": ["autogroup:self"]}
    rule |= {"src": draw(some(SOURCES)), "dst": draw(some(TARGETS))}
    if draw(st.integers(0, 3)) == 0:
        rule["via"] = draw(some(TAGS))
    if draw(st.integers(0, 3)) == 0:
        rule["srcPosture"] = ["posture:ok"]
    internet = {"autogroup:internet", "ipset:net"} & set(rule["dst"])
    if not internet and draw(st.integers(0, 2)) == 0:
        rule["app"] = {"tailscale.com/cap/drive": [{"shares": ["*"]}], "example.com/cap/x": []}
    return rule


@st.composite
def ssh_rules(draw: st.DrawFn) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "action": draw(st.sampled_from(("accept", "check"))),
        "users": draw(some(("root", "autogroup:nonroot", "localpart:*@corp.example"))),
    }
    if draw(st.booleans()):
        rule |= {"src": draw(some(SSH_PEOPLE)), "dst": ["autogroup:self"]}
    else:
        tagged = TAGS if rule["action"] == "accept" else ()  # nobody signs in for a tagged device
        rule |= {"src": draw(some((*SSH_PEOPLE, *tagged))), "dst": draw(some(TAGS))}
    if draw(st.integers(0, 2)) == 0:
        rule["srcPosture"] = ["posture:ok"]
    return rule


@st.composite
def attributes(draw: st.DrawFn) -> dict[str, Any]:
    target = draw(some((*TAGS, "*", "bob@corp.example", "group:dev", "autogroup:member", "100.64.1.2")))
    return {"target": target, "attr": draw(some(("funnel", "disable-ipv4", "example.com/x")))}


policies = st.tuples(
    st.lists(rules(), max_size=5), st.lists(ssh_rules(), max_size=3), st.lists(attributes(), max_size=2)
).map(
    lambda chosen: parse_policy(
        json.dumps({"grants": chosen[0], "ssh": chosen[1], "nodeAttrs": chosen[2], **SECTIONS})
    )
)


@st.composite
def nodes(draw: st.DrawFn, number: int) -> NodeSnapshot:
    tags = draw(st.lists(st.sampled_from(TAGS), max_size=2, unique=True))
    routes = draw(st.lists(st.sampled_from((*SUBNETS, "exit")), max_size=2, unique=True))
    approved = [prefix for route in routes for prefix in (EXIT if route == "exit" else (route,))]
    return node(
        number,
        user=0 if tags else draw(st.integers(ANN, EVE)),
        tags=tags,
        routes=tuple(approved),
        standing=draw(
            st.sampled_from((Standing.ACTIVE, Standing.ACTIVE, Standing.PENDING, Standing.EXPIRED))
        ),
        attributes={"node:os": draw(st.sampled_from(("linux", "windows")))},
        online=draw(st.booleans()),
        # An address may change.
        ipv4=f"100.64.1.{number + draw(st.sampled_from((0, 0, 0, 20)))}",
    )


@st.composite
def people(draw: st.DrawFn) -> dict[int, UserSnapshot]:
    changed = dict(PEOPLE)
    for number in PEOPLE:
        changed[number] = replace(
            PEOPLE[number],
            role=draw(st.sampled_from(("owner", "member", "auditor"))),
            groups=draw(st.sampled_from(((), ("group:from-provider",)))),
        )
    return changed


@st.composite
def tailnets(draw: st.DrawFn) -> TailnetSnapshot:
    numbers = draw(st.sets(st.sampled_from(NUMBERS)))
    return tailnet([draw(nodes(number)) for number in sorted(numbers)], draw(people()))


@st.composite
def histories(draw: st.DrawFn) -> list[TailnetSnapshot]:
    """A tailnet through joins, leaves, and changes of tags, owners, routes, states, people."""
    steps = [draw(tailnets())]
    for _ in range(draw(st.integers(1, 6))):
        now = dict(steps[-1].nodes)
        users = dict(steps[-1].users)
        for number in draw(st.sets(st.sampled_from(NUMBERS), max_size=2)):
            if number in now and draw(st.integers(0, 2)) == 0:
                del now[number]
            else:
                now[number] = draw(nodes(number))
        if draw(st.integers(0, 3)) == 0:
            users = draw(people())
        steps.append(tailnet(now.values(), users))
    return steps


def meaning(evaluation: Evaluation, snapshot: TailnetSnapshot) -> dict[int, Any]:
    """All that an evaluation says of each node; views are named by the nodes that share them."""
    views = {number: evaluation.view_key(number) for number in snapshot.nodes}
    return {
        number: (
            evaluation.world.ids(evaluation.peers_of(number)),
            {other: evaluation.routes_for(number, other) for other in snapshot.nodes},
            evaluation.filter_of(number),
            evaluation.ssh_of(number),
            evaluation.capabilities_of(number),
            number in evaluation.without_ipv4,
            [other for other in snapshot.nodes if views[other] == views[number]],
        )
        for number in snapshot.nodes
    }


def sorted_meaning(evaluation: Evaluation, snapshot: TailnetSnapshot) -> dict[int, Any]:
    return {number: (sorted(seen), *rest) for number, (seen, *rest) in meaning(evaluation, snapshot).items()}


@given(policies, histories(), st.data())
def test_incremental_equals_full(policy: Policy, steps: list[TailnetSnapshot], data: st.DataObject) -> None:
    evaluation = Evaluation.of(policy, steps[0])
    for before, after in pairwise(steps):
        for number in data.draw(st.sets(st.sampled_from(NUMBERS))):  # some were asked for before, others not
            evaluation.filter_of(number)
            evaluation.peers_of(number)
            evaluation.view_key(number)
        differing = {i for i in NUMBERS if before.nodes.get(i) != after.nodes.get(i)}
        told = data.draw(st.sampled_from((None, differing, set(NUMBERS))))
        evaluation = evaluation.updated(after, told)
        full = Evaluation.of(policy, after)
        assert sorted_meaning(evaluation, after) == sorted_meaning(full, after)


@given(policies, tailnets())
def test_nobody_is_seen_without_a_rule(policy: Policy, snapshot: TailnetSnapshot) -> None:
    """Seeing is mutual, never of oneself, and some rule taken alone explains it."""
    evaluation = Evaluation.of(policy, snapshot)
    alone = [Evaluation.of(replace(policy, rules=(rule,)), snapshot) for rule in policy.rules]
    for viewer in snapshot.nodes:
        for peer in snapshot.nodes:
            sees = evaluation.sees(viewer, peer)
            assert sees == evaluation.sees(peer, viewer)
            assert not (sees and viewer == peer)
            assert sees == any(one.sees(viewer, peer) for one in alone)


@given(policies, tailnets())
def test_filters_let_in_only_those_that_are_seen(policy: Policy, snapshot: TailnetSnapshot) -> None:
    """Whose own address may send to a node's own address is its peer, or is the node itself."""
    evaluation = Evaluation.of(policy, snapshot)
    for number, one in snapshot.nodes.items():
        for other in snapshot.nodes.values():
            takes_part = {one.standing, other.standing} <= {Standing.ACTIVE, Standing.EXPIRED}
            if other.id != number and takes_part and lets_in(evaluation.filter_of(number), other, one):
                assert evaluation.sees(number, other.id)


def lets_in(filter_rules: list[dict[str, Any]], source: NodeSnapshot, target: NodeSnapshot) -> bool:
    """Whether a filter passes something from a node's IPv6 address, which it alone has, to the target's."""
    return any(
        any(holds(text, source.ipv6) for text in rule["SrcIPs"])
        and any(holds(to["IP"], target.ipv6) for to in rule.get("DstPorts", ()))
        for rule in filter_rules
    )


def holds(text: str, address: str) -> bool:
    if text == "*":
        return True
    first, dash, last = text.partition("-")
    if dash:
        return ip_address(first).version == ip_address(address).version and int(ip_address(first)) <= int(
            ip_address(address)
        ) <= int(ip_address(last))
    return ip_address(address) in ip_network(text)


@given(policies, tailnets())
def test_routes_are_approved_and_have_one_carrier(policy: Policy, snapshot: TailnetSnapshot) -> None:
    evaluation = Evaluation.of(policy, snapshot)
    for viewer in snapshot.nodes:
        carriers: dict[str, int] = {}
        for peer, its in snapshot.nodes.items():
            routes = evaluation.routes_for(viewer, peer)
            assert set(routes) <= set(its.routes)
            assert not routes or evaluation.sees(viewer, peer)
            for prefix in set(routes) - set(EXIT):
                assert carriers.setdefault(prefix, peer) == peer


@given(policies, tailnets())
def test_who_waits_or_left_takes_no_part(policy: Policy, snapshot: TailnetSnapshot) -> None:
    evaluation = Evaluation.of(policy, snapshot)
    for number, one in snapshot.nodes.items():
        if one.standing is Standing.PENDING:
            assert evaluation.filter_of(number) == []
            assert evaluation.peers_of(number) == 0
            assert not any(
                one.ipv6 in rule["SrcIPs"] for i in snapshot.nodes for rule in evaluation.filter_of(i)
            )


@given(policies, tailnets(), tailnets())
def test_two_tailnets_never_mix(policy: Policy, one: TailnetSnapshot, other: TailnetSnapshot) -> None:
    """What one tailnet is told does not depend on what was evaluated of another one."""
    before = meaning(Evaluation.of(policy, one), one)
    meaning(Evaluation.of(policy, other), other)
    assert meaning(Evaluation.of(policy, one), one) == before
