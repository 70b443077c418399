"""Which rules concern a node, and what its rules let it reach: the filters of the others say the same."""

from __future__ import annotations

import json
from ipaddress import ip_address

from hypothesis import given

from controlplane.netmap.policy.concerns import Reach, concerns_of, targets_between
from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.ranges import IPSet, number
from controlplane.netmap.policy.ranges import parse_prefix as prefix
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot
from tests.controlplane.policy.tailnets import ANN, BOB, apply, node, tags
from tests.controlplane.policy.test_laws import policies, tailnets

POLICY = {
    "tagOwners": tags("web", "db"),
    "acls": [
        {"action": "accept", "src": ["tag:web"], "dst": ["tag:db:5432"]},
        {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*", "10.1.0.0/16:22"]},
    ],
    "ssh": [
        {"action": "accept", "src": ["bob@corp.example"], "dst": ["tag:db"], "users": ["root"]},
    ],
}
WEB, DATABASE, LAPTOP, DESKTOP, PHONE, ROUTER = range(1, 7)
NODES = (
    node(WEB, tags=["tag:web"]),
    node(DATABASE, tags=["tag:db"]),
    node(LAPTOP, user=ANN),
    node(DESKTOP, user=ANN),
    node(PHONE, user=BOB),
    node(ROUTER, tags=["tag:web"], routes=("10.1.2.0/24",)),
)


def test_rules_are_named_by_their_places_in_both_directions() -> None:
    checked = apply(POLICY, *NODES)
    first, second, ssh = (
        checked.policy.rules[0].offset,
        checked.policy.rules[1].offset,
        checked.policy.ssh[0].offset,
    )
    found = {one: concerns_of(checked.evaluation, one) for one in range(WEB, ROUTER + 1)}
    assert (found[WEB].outwards, found[WEB].inwards) == ((first,), ())
    assert (found[DATABASE].outwards, found[DATABASE].inwards) == ((), (first, ssh))
    assert (found[LAPTOP].outwards, found[LAPTOP].inwards) == ((second,), (second,))
    assert (found[PHONE].outwards, found[PHONE].inwards) == ((second, ssh), (second,))
    assert (found[ROUTER].outwards, found[ROUTER].inwards) == ((first,), (second,))
    assert json.dumps(POLICY)[first:].startswith('{"action": "accept", "src": ["tag:web"]')


def test_what_some_nodes_may_use_at_another_is_told_by_target() -> None:
    evaluation = apply(POLICY, *NODES).evaluation
    world = evaluation.world
    own = world.bit(LAPTOP) | world.bit(DESKTOP)
    assert [target.selector.text for target in targets_between(evaluation, own, DESKTOP)] == [
        "autogroup:self"
    ]
    assert [target.selector.text for target in targets_between(evaluation, own, ROUTER)] == ["10.1.0.0/16"]
    assert targets_between(evaluation, own, DATABASE) == []
    assert targets_between(evaluation, own, PHONE) == []


def span(text: str) -> IPSet:
    """What a filter's text means."""
    if "-" in text:
        first, last = text.split("-")
        return IPSet.of([(number(first), number(last))])
    parsed = prefix(text)
    return IPSet.of([(parsed.first, parsed.last)])


def lets_in(evaluation: Evaluation, source: NodeSnapshot, target: NodeSnapshot) -> bool:
    """Whether the target's filter opens a port of its own to the source, both by one version of IP."""
    return any(
        _holds(rule["SrcIPs"], one) and _holds([place["IP"] for place in rule.get("DstPorts", ())], other)
        for rule in evaluation.filter_of(target.id)
        for one in (source.ipv4, source.ipv6)
        for other in (target.ipv4, target.ipv6)
    )


def _holds(texts: list[str], address: str) -> bool:
    return any(text == "*" or span(text).contains(number(address)) for text in texts)


@given(policies, tailnets())
def test_who_reaches_whom_is_what_the_filters_let_in(policy: Policy, snapshot: TailnetSnapshot) -> None:
    evaluation = Evaluation.of(policy, snapshot)
    reach, world = Reach(evaluation), evaluation.world
    taking_part = [one for one in snapshot.nodes.values() if world.bit(one.id)]
    for source in taking_part:
        assert ip_address(source.ipv4)
        reached = reach.of(world.bit(source.id))
        for target in taking_part:
            if source.id == target.id:
                continue
            there = bool(reached & world.bit(target.id))
            assert there == lets_in(evaluation, source, target), (source.id, target.id)
            assert there == bool(reach.reaching(target.id) & world.bit(source.id))
