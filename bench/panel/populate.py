"""A tailnet of many devices, written at once: what a list page has to cope with."""

from __future__ import annotations

import json
import secrets
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from accounts.actors import Actor
from accounts.models import AuditEvent, Membership, Tailnet, User
from accounts.roles import Role
from accounts.services.people import create_person
from accounts.services.tailnets import create_tailnet
from accounts.tenancy import scope
from controlplane.services.policy import save_policy
from nodes.models import Node, PathReport, Presence, ReportedPath, Route
from wire.keys import DiscoPublic, MachinePublic, NodePublic
from wire.paths import Reason

PEOPLE = 200
PEERS = 20
GROUPS = 20
TEAMS = 7
RULES = 100
SYSTEMS = ("linux", "linux", "linux", "windows", "macOS", "iOS", "android")
FIRST_V4 = IPv4Address("100.64.1.0")
FIRST_V6 = IPv6Address("fd7a:115c:a1e0::1:0")


def make_tailnet(devices: int, now: datetime, name: str = "bench") -> tuple[Tailnet, User]:
    """A tailnet with its owner, people, and ``devices`` of every system and state; half of them online."""
    owner = create_person(email=f"owner@{name}.example")
    tailnet, _ = create_tailnet(name=name, owner=owner, by=Actor.command())
    with scope(tailnet=tailnet):
        people = [owner, *_people(tailnet, name)]
        nodes = Node.objects.bulk_create(
            [_node(tailnet, people, number, now) for number in range(devices)], batch_size=500
        )
        _surround(tailnet, nodes, now)
    save_policy(tailnet=tailnet, text=_policy(name), by=Actor.command())
    return tailnet, owner


def _policy(name: str) -> str:
    """Departments that reach servers, people their own devices, servers one another, and a test of it."""
    logins = [f"person{number:03}@{name}.example" for number in range(PEOPLE)]
    teams = [f"tag:team{number}" for number in range(TEAMS)]
    own = {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}
    grants = [_grant(number, teams) for number in range(RULES)]
    policy = {
        "groups": {f"group:g{number}": logins[number::GROUPS] for number in range(GROUPS)},
        "tagOwners": {tag: ["autogroup:admin"] for tag in (*teams, "tag:server")},
        "grants": [own, *grants],
        "ssh": [
            {
                "action": "check",
                "src": [f"group:g{number}"],
                "dst": [teams[number % TEAMS]],
                "users": ["root"],
            }
            for number in range(GROUPS)
        ],
        "tests": [{"src": logins[0], "accept": ["tag:team0:22"], "deny": ["tag:team0:23"]}],
    }
    return json.dumps(policy, indent="\t") + "\n"


def _grant(number: int, teams: list[str]) -> dict[str, list[str]]:
    source = teams[number % 5] if number % 4 == 3 else f"group:g{number % GROUPS}"
    return {"src": [source], "dst": [teams[number % TEAMS]], "ip": ["tcp:22", f"tcp:{8000 + number}"]}


def _people(tailnet: Tailnet, name: str) -> list[User]:
    made = User.objects.bulk_create(
        [
            User(email=f"person{number:03}@{name}.example", username=f"{name}-{number}", sub=f"{number}")
            for number in range(PEOPLE)
        ]
    )
    Membership.objects.bulk_create([Membership(tailnet=tailnet, user=one, role=Role.MEMBER) for one in made])
    return made


def _node(tailnet: Tailnet, people: list[User], number: int, now: datetime) -> Node:
    tagged = number % 5 == 0
    system = SYSTEMS[number % len(SYSTEMS)]
    hostname = f"{system.lower()}-{number:05}"
    return Node(
        tailnet=tailnet,
        stable_id=f"n{number:05}{secrets.token_hex(4)}CNTRL",
        user=None if tagged else people[number % len(people)],
        tags=[f"tag:team{number % TEAMS}", "tag:server"] if tagged else [],
        machine_key=str(MachinePublic(secrets.token_bytes(32))),
        node_key=str(NodePublic(secrets.token_bytes(32))),
        disco_key=str(DiscoPublic(secrets.token_bytes(32))),
        state=Node.State.PENDING if number % 250 == 1 else Node.State.ACTIVE,
        approved_at=None if number % 250 == 1 else now,
        hostname=hostname,
        name=hostname,
        ipv4=str(FIRST_V4 + number),
        ipv6=str(FIRST_V6 + number),
        created=now - timedelta(days=200),
        last_login=now - timedelta(days=100),
        last_seen=now - timedelta(days=number % 180),
        key_expiry=now + timedelta(days=number % 170 - 3),
        hostinfo=_hostinfo(hostname, system, number),
        endpoints=[f"192.0.2.{number % 250 + 1}:41641", "10.0.0.7:41641"],
        home_derp=900,
    )


def _hostinfo(hostname: str, system: str, number: int) -> dict[str, object]:
    """As large as the ones that clients send."""
    return {
        "Hostname": hostname,
        "OS": system,
        "OSVersion": "6.1.0-18-amd64",
        "Distro": "debian",
        "DistroVersion": "12.5",
        "IPNVersion": f"1.{88 + number % 3}.{number % 4}-t1a2b3c4d5-g0123456789",
        "BackendLogID": secrets.token_hex(32),
        "DeviceModel": "Standard PC (Q35 + ICH9, 2009)",
        "Services": [{"Proto": "peerapi4", "Port": 40000}, {"Proto": "peerapi6", "Port": 40001}],
        "NetInfo": {
            "WorkingUDP": True,
            "WorkingIPv6": False,
            "MappingVariesByDestIP": False,
            "PreferredDERP": 900,
            "DERPLatency": {f"{900 + region}-v4": 0.01 * (region + 1) for region in range(10)},
        },
    }


def _surround(tailnet: Tailnet, nodes: list[Node], now: datetime) -> None:
    """Presences, routes, reports of paths and the audit log."""
    Presence.objects.bulk_create(
        [
            Presence(
                tailnet=tailnet,
                node=node,
                worker="w",
                epoch=1,
                connected_at=now,
                expires=now + timedelta(hours=9),
            )
            for node in nodes[::2]
        ],
        batch_size=500,
    )
    Route.objects.bulk_create(
        [
            Route(tailnet=tailnet, node=node, prefix=prefix, approved_at=now if number % 2 else None)
            for number, node in enumerate(nodes[::50])
            for prefix in ("0.0.0.0/0", "::/0", f"10.{number % 250}.0.0/16")
        ],
        batch_size=500,
    )
    ids = [node.pk for node in nodes]
    PathReport.objects.bulk_create(
        [PathReport(tailnet=tailnet, node=node, reported_at=now) for node in nodes[::2]],
        batch_size=500,
    )
    ReportedPath.objects.bulk_create(
        [path for number, node in enumerate(nodes[::2]) for path in _paths(node, ids, number)],
        batch_size=500,
    )
    AuditEvent.objects.bulk_create(
        [
            AuditEvent(
                tailnet=tailnet,
                origin="NODE",
                actor_type="NODE",
                actor_name=node.name,
                action="CREATE" if number % 3 else "LOGIN",
                target_type="NODE",
                target_id=node.stable_id,
                target_name=node.name,
                digest="0" * 64,
            )
            for number, node in enumerate(nodes * 4)
        ],
        batch_size=500,
    )


def _paths(node: Node, ids: list[int], number: int) -> list[ReportedPath]:
    """A third of the devices talk to nobody; of the others' pairs a quarter are relayed."""
    peers = {ids[(number * 7 + step) % len(ids)] for step in range(PEERS if number % 3 else 0)} - {node.pk}
    return [
        ReportedPath(
            tailnet_id=node.tailnet_id,
            node=node,
            peer_id=peer,
            endpoint="203.0.113.7:41641" if (peer + number) % 4 else "",
            derp_region=900,
            reason="" if (peer + number) % 4 else Reason.HARD_NAT_BOTH.value,
        )
        for peer in peers
    ]
