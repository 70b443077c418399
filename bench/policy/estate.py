"""A company on paper: people, devices and the policy they live under, of any size, the same each time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from random import Random
from typing import Any

from controlplane.netmap.snapshot import NodeSnapshot, Standing, TailnetSnapshot, UserSnapshot

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
FIRST_IPV4, FIRST_IPV6 = IPv4Address("100.64.0.1"), IPv6Address("fd7a:115c:a1e0::1")
DOMAIN, SUFFIX = "example.com", "home.example"
PORTS = ("22", "80,443", "5432", "8000-8999", "*", "53,853", "9090")
SUBNETS = 40  # prefixes that routers carry


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of what."""

    nodes: int
    users: int
    groups: int = 50
    tags: int = 100
    rules: int = 500

    @classmethod
    def of(cls, nodes: int) -> Size:
        """The company of this many devices: a fifth as many people, but the same departments and rules."""
        return cls(nodes, users=max(nodes // 5, 10))


def login(number: int) -> str:
    return f"user{number}@{DOMAIN}"


def subnet(number: int) -> str:
    return f"10.{number}.0.0/16"


def user_of(number: int) -> UserSnapshot:
    role = "owner" if number == 0 else "admin" if number < 5 else "member"
    return UserSnapshot(id=number + 1, login_name=login(number), display_name=f"User {number}", role=role)


def node_of(number: int, size: Size) -> NodeSnapshot:
    """Half of the devices are people's, half tagged; some carry subnets or are exits."""
    tags: tuple[str, ...] = ()
    if number % 2:
        tags = (f"tag:t{number // 2 % size.tags}",)
        if number % 7 == 0:
            tags = tuple(sorted({*tags, f"tag:t{number % size.tags}"}))
    routes: tuple[str, ...] = (subnet(number // 40 % SUBNETS),) if number % 40 == 1 else ()
    if number % 100 == 3:
        routes = (*routes, "0.0.0.0/0", "::/0")
    return NodeSnapshot(
        id=number + 1,
        stable_id=f"n{number + 1}",
        name=f"host-{number + 1}.{SUFFIX}.",
        user_id=number // 2 % size.users + 1,
        machine_key=f"mkey:{number + 1:064x}",
        node_key=f"nodekey:{number + 1:064x}",
        disco_key=f"discokey:{number + 1:064x}",
        ipv4=str(FIRST_IPV4 + number),
        ipv6=str(FIRST_IPV6 + number),
        standing=Standing.ACTIVE,
        created=CREATED,
        tags=tags,
        routes=routes,
        primary_routes=tuple(route for route in routes if not route.endswith("/0")),
        hostinfo={"OS": "linux", "Hostname": f"host-{number + 1}"},
        online=True,
        online_since=CREATED,
    )


def snapshot_of(size: Size) -> TailnetSnapshot:
    nodes = (node_of(number, size) for number in range(size.nodes))
    users = (user_of(number) for number in range(size.users))
    return TailnetSnapshot(
        id=1,
        name="bench",
        suffix=SUFFIX,
        version=1,
        nodes={node.id: node for node in nodes},
        users={user.id: user for user in users},
    )


def policy_of(size: Size) -> str:
    """A policy with as many rules; what it says depends on the size alone."""
    random = Random(6)
    rules = [_rule(number, size, random) for number in range(size.rules)]
    policy = {
        "groups": {f"group:g{n}": _members(size, random) for n in range(size.groups)},
        "tagOwners": {
            f"tag:t{n}": [f"group:g{n % size.groups}", login(n % size.users)] for n in range(size.tags)
        },
        "hosts": {f"host{n}": f"10.{n}.0.10" for n in range(SUBNETS)},
        "acls": [rule for rule in rules if "action" in rule],
        "grants": [rule for rule in rules if "action" not in rule],
        "ssh": [_ssh(number, size) for number in range(size.rules // 25)],
        "nodeAttrs": [{"target": [f"tag:t{n}"], "attr": ["randomize-client-port"]} for n in range(5)],
        "autoApprovers": {
            "routes": {subnet(n): [f"tag:t{n}"] for n in range(SUBNETS)},
            "exitNode": ["tag:t1"],
        },
    }
    return "// The company's policy.\n" + json.dumps(policy, indent="\t") + "\n"


def _members(size: Size, random: Random) -> list[str]:
    count = min(max(size.users // size.groups * 2, 2), size.users)
    return [login(number) for number in sorted(random.sample(range(size.users), count))]


def _rule(number: int, size: Size, random: Random) -> dict[str, Any]:
    """Mostly departments to servers; also people, addresses, subnets, own devices, ways and capabilities."""
    group, tag = f"group:g{random.randrange(size.groups)}", f"tag:t{random.randrange(size.tags)}"
    other, ports = f"tag:t{random.randrange(size.tags)}", random.choice(PORTS)
    match number % 20:
        case 0:
            return _acl(["autogroup:member"], [f"autogroup:self:{ports}"])
        case 1 | 2:
            return _acl([group], [f"{subnet(random.randrange(SUBNETS))}:{ports}"])
        case 3:
            return _acl([login(random.randrange(size.users))], [f"host{random.randrange(SUBNETS)}:{ports}"])
        case 4:
            return _acl([group], ["autogroup:internet:*"])
        case 5 | 6 | 7:
            return _acl([tag], [f"{other}:{ports}"])
        case 8:
            return _acl([str(FIRST_IPV4 + random.randrange(size.nodes))], [f"{tag}:{ports}"], "udp")
        case 9:
            return {"src": [group], "dst": [tag], "app": {"example.com/cap/files": [{"rights": ["read"]}]}}
        case 10:
            return {"src": [group], "dst": [tag, other], "ip": [f"tcp:{port}" for port in ("22", "443")]}
        case _:
            return _acl([group, login(random.randrange(size.users))], [f"{tag}:{ports}", f"{other}:443"])


def _acl(src: list[str], dst: list[str], proto: str = "") -> dict[str, Any]:
    return {"action": "accept", "src": src, "dst": dst} | ({"proto": proto} if proto else {})


def _ssh(number: int, size: Size) -> dict[str, Any]:
    return {
        "action": "accept",
        "src": [f"group:g{number % size.groups}"],
        "dst": [f"tag:t{number % size.tags}"],
        "users": ["autogroup:nonroot", "root"],
    }
