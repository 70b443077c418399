"""Recorded answers and our own in one form, by meaning: what may send to what, and who is told what."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controlplane.netmap.policy.parse_selectors import parse_addresses
from controlplane.netmap.policy.ranges import IPSet, parse_prefix

CATEGORIES = ("acl", "grants", "nodeattrs", "routes", "ssh", "sshtests", "tests")
PROTOCOLS = (1, 6, 17, 58)
Answer = Mapping[str, Any]


def read_addresses(text: str) -> IPSet:
    """What a filter means by one of its texts."""
    if text == "*":
        return IPSet.of_prefixes((parse_prefix("0.0.0.0/0"), parse_prefix("::/0")))
    return parse_addresses(text)


def packets(rules: Iterable[Answer]) -> Iterator[tuple[IPSet, IPSet, tuple[int, int], int]]:
    """Source, destination, ports and protocol of each combination that a filter lets through."""
    for rule in rules:
        source = IPSet()
        for text in rule.get("SrcIPs") or ():
            source |= read_addresses(text)
        for target in rule.get("DstPorts") or ():
            ports = target["Ports"]["First"], target["Ports"]["Last"]
            for protocol in rule.get("IPProto") or PROTOCOLS:
                yield source, read_addresses(target["IP"]), ports, protocol


def let_through(*filters: Iterable[Answer]) -> list[dict[tuple[int, int, int], IPSet]]:
    """For each filter the sources by destination, port and protocol.

    Destinations and ports are cut where any of the filters cuts them, so that two of equal meaning are equal.
    """
    flat = [list(packets(rules)) for rules in filters]
    everything = [packet for packets_of in flat for packet in packets_of]
    cuts = sorted({cut for _, to, _, _ in everything for a, b in to.spans for cut in (a, b + 1)})
    ports = sorted({cut for _, _, (a, b), _ in everything for cut in (a, b + 1)})
    result = []
    for packets_of in flat:
        cells: dict[tuple[int, int, int], IPSet] = {}
        for source, to, (first, last), protocol in packets_of:
            for at in (cut for cut in cuts if to.contains(cut)):
                for port in (cut for cut in ports if first <= cut <= last):
                    cells[at, port, protocol] = cells.get((at, port, protocol), IPSet()) | source
        result.append({cell: source for cell, source in cells.items() if source})
    return result


def capabilities(rules: Iterable[Answer]) -> dict[tuple[str, str, str], IPSet]:
    """The sources by destination, capability and value of the grants of applications."""
    found: dict[tuple[str, str, str], IPSet] = {}
    for rule in rules:
        for grant in rule.get("CapGrant") or ():
            for name, values in (grant.get("CapMap") or {}).items():
                for value in values or (None,):
                    for to in grant.get("Dsts") or ():
                        key = (to, name, json.dumps(value, sort_keys=True))
                        for text in rule.get("SrcIPs") or ():
                            found[key] = found.get(key, IPSet()) | read_addresses(text)
    return found


def shell_rules(rules: Iterable[Answer]) -> list[tuple[Any, ...]]:
    """SSH rules in order; where a check is to be asked for is each server's own business."""
    result = []
    for rule in rules:
        action = {name: value for name, value in (rule.get("action") or {}).items() if value}
        if "holdAndDelegate" in action:
            action["holdAndDelegate"] = True
        who = frozenset(json.dumps(one, sort_keys=True) for one in rule.get("principals") or ())
        users = tuple(sorted((rule.get("sshUsers") or {}).items()))
        result.append((who, users, json.dumps(action, sort_keys=True), tuple(rule.get("acceptEnv") or ())))
    return result


def peers(answer: Answer) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Of each peer the allowed addresses and the routes that it carries."""
    return {
        name: (frozenset(peer.get("allowed_ips") or ()), frozenset(peer.get("primary_routes") or ()))
        for name, peer in (answer.get("peers") or {}).items()
    }


def named_attributes(policy: Mapping[str, Any]) -> set[str]:
    """The attributes and capabilities that ``nodeAttrs`` names: the others are the service's own."""
    entries = policy.get("nodeAttrs") or ()
    return {name for entry in entries for name in (*entry.get("attr", ()), *entry.get("app", {}))}


def differences(case: Answer, ours: Answer | None) -> list[str]:
    """In what our answer to a case differs from the recorded one."""
    if ours is None:
        return ["no answer"]
    if (case["status"] == 200) != (ours.get("status") == 200):
        return [f"status {ours.get('status')}: {ours.get('message')}"]
    if case["status"] != 200:
        return []
    found = []
    attributes = named_attributes(json.loads(case["policy"])) if case["category"] == "nodeattrs" else set()
    for name, expected in case["expect"].items():
        told = (ours.get("expect") or {}).get(name)
        if told is None:
            found.append(f"{name}: not answered")
            continue
        found += [f"{name}: {what}" for what in _different(expected, told, attributes)]
    return found


def _different(expected: Answer, told: Answer, attributes: set[str]) -> Iterator[str]:
    theirs, ours = expected.get("filter_rules") or (), told.get("filter_rules") or ()
    one, other = let_through(theirs, ours)
    if one != other:
        yield "filter"
    if capabilities(theirs) != capabilities(ours):
        yield "capability grants"
    if "ssh_rules" in expected and shell_rules(expected["ssh_rules"] or ()) != shell_rules(
        told.get("ssh_rules") or ()
    ):
        yield "SSH rules"
    if "peers" in expected and peers(expected) != peers(told):
        yield "peers"
    known, given = expected.get("self_cap_map") or {}, told.get("self_cap_map") or {}
    for name in attributes:
        if (name in known) != (name in given) or (known.get(name) or None) != (given.get(name) or None):
            yield f"attribute {name}"
