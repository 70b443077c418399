"""Generated tailnets and their histories, for the engine: plain data, no database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from controlplane.netmap.policy.parse import parse_policy
from controlplane.netmap.snapshot import (
    DNSSnapshot,
    NodeSnapshot,
    Standing,
    TailnetSnapshot,
    UserSnapshot,
)
from wire.derpmap import DERPMap, DERPNode, DERPRegion

START = datetime(2030, 1, 1, tzinfo=UTC)
IDS = range(1, 7)
NONE_KEY = ""


def node_key(number: int) -> str:
    return f"nodekey:{number:064x}"


def disco_key(number: int) -> str:
    return f"discokey:{number:064x}" if number else NONE_KEY


def moment(number: int) -> datetime | None:
    return START + timedelta(minutes=number) if number else None


def node(node_id: int, **values: Any) -> NodeSnapshot:
    given: dict[str, Any] = {
        "id": node_id,
        "stable_id": f"n{node_id}",
        "name": f"box{node_id}.home.example.",
        "user_id": 1 + node_id % 2,
        "machine_key": f"mkey:{node_id:064x}",
        "node_key": node_key(node_id),
        "ipv4": f"100.64.0.{node_id}",
        "ipv6": f"fd7a:115c:a1e0::{node_id}",
        "standing": Standing.ACTIVE,
        "created": START,
        "disco_key": disco_key(node_id),
    }
    return NodeSnapshot(**(given | values))


def user(user_id: int, name: str = "") -> UserSnapshot:
    return UserSnapshot(
        id=user_id, login_name=f"user{user_id}@example.com", display_name=name or f"User {user_id}"
    )


PEOPLE = {number: user(number) for number in (1, 2, 3)}


def derp_map(port: int) -> DERPMap:
    relay = DERPNode(name="900a", region_id=900, host_name="relay.example", derp_port=port)
    region = DERPRegion(region_id=900, region_code="t", region_name="T", nodes=(relay,))
    return DERPMap(regions={900: region} if port else {})


def tailnet(*nodes: NodeSnapshot, **values: Any) -> TailnetSnapshot:
    given: dict[str, Any] = {
        "id": 1,
        "name": "Home",
        "suffix": "home.example",
        "version": 1,
        "nodes": {one.id: one for one in nodes},
        "users": PEOPLE,
        "derp_map": derp_map(3340),
    }
    return TailnetSnapshot(**(given | values))


# --- histories -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SetNode:
    """A node appears or changes in some of its members."""

    id: int
    values: tuple[tuple[str, Any], ...]

    def apply(self, old: TailnetSnapshot) -> TailnetSnapshot:
        before = old.nodes.get(self.id) or node(self.id)
        return replace(old, nodes=dict(old.nodes) | {self.id: replace(before, **dict(self.values))})


@dataclass(frozen=True)
class Remove:
    id: int

    def apply(self, old: TailnetSnapshot) -> TailnetSnapshot:
        return replace(old, nodes={key: value for key, value in old.nodes.items() if key != self.id})


@dataclass(frozen=True)
class SetShared:
    """A member of the whole tailnet changes."""

    name: str
    value: Any

    def apply(self, old: TailnetSnapshot) -> TailnetSnapshot:
        if self.name == "suffix":
            nodes = {
                key: replace(one, name=f"{one.name.partition('.')[0]}.{self.value}.")
                for key, one in old.nodes.items()
            }
            return replace(old, suffix=self.value, nodes=nodes)
        return replace(old, **{self.name: self.value})


@dataclass(frozen=True)
class Batch:
    """Several changes that arrive as one."""

    changes: tuple[Any, ...]

    def apply(self, old: TailnetSnapshot) -> TailnetSnapshot:
        for change in self.changes:
            old = change.apply(old)
        return old


OWNERS = '"tagOwners": {"tag:a": [], "tag:b": []}'
POLICIES = [
    parse_policy(text)
    for text in (
        "{}",
        f'{{"acls": [{{"action": "accept", "src": ["*"], "dst": ["*:*"]}}], {OWNERS}}}',
        '{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self", "autogroup:internet"],'
        f' "ip": ["*"]}}], {OWNERS}}}',
        '{"grants": [{"src": ["group:g"], "dst": ["tag:a", "10.1.0.0/16"], "ip": ["tcp:22"]},'
        ' {"src": ["tag:b"], "dst": ["user2@example.com"], "app": {"example.com/cap": [{}]}}],'
        f' "groups": {{"group:g": ["user1@example.com"]}}, {OWNERS},'
        ' "nodeAttrs": [{"target": ["tag:a"], "attr": ["funnel"]}],'
        ' "ssh": [{"action": "accept", "src": ["group:g"], "dst": ["tag:a"], "users": ["root"]}]}',
        '{"grants": [{"src": ["*"], "dst": ["10.0.0.0/8"], "ip": ["*"], "via": ["tag:a"]},'
        f' {{"src": ["autogroup:tagged"], "dst": ["autogroup:member"], "ip": ["443"]}}], {OWNERS}}}',
        '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]},'
        ' {"src": ["*"], "dst": ["10.0.0.0/8"], "ip": ["*"], "via": ["tag:b"]}],'
        f' "nodeAttrs": [{{"target": ["tag:a"], "attr": ["disable-ipv4"]}}], {OWNERS}}}',
        '{"grants": [{"src": ["autogroup:member"], "dst": ["*"], "ip": ["*"]}], "disableIPv4": true}',
        '{"postures": {"posture:p": ["node:os == \'linux\'"]}, "grants": [{"src": ["*"], "dst": ["*"],'
        f' "ip": ["*"], "srcPosture": ["posture:p"]}}], {OWNERS}}}',
    )
]

small = st.integers(0, 3)
members: dict[str, st.SearchStrategy[Any]] = {
    "standing": st.sampled_from(list(Standing)),
    "node_key": st.integers(100, 103).map(node_key),
    "disco_key": small.map(disco_key),
    "endpoints": st.sampled_from([(), ("192.0.2.1:1",), ("192.0.2.1:1", "192.0.2.2:2")]),
    "home_derp": st.sampled_from([0, 900, 901]),
    "online": st.booleans(),
    "last_seen": small.map(moment),
    "key_expiry": small.map(moment),
    "capability_version": st.sampled_from([0, 113, 130]),
    "name": st.sampled_from(["box.home.example.", "bad name.", ""]),
    "tags": st.sampled_from([(), ("tag:a",), ("tag:a", "tag:b"), ("tag:b",)]),
    "attributes": st.sampled_from([{}, {"node:os": "linux"}]),
    "routes": st.sampled_from([(), ("10.0.0.0/8",), ("10.0.0.0/8", "10.1.0.0/16"), ("0.0.0.0/0", "::/0")]),
    "approved": small.map(lambda number: {"10.0.0.0/8": START + timedelta(minutes=number)}),
    "online_since": small.map(moment),
    "primary_routes": st.sampled_from([(), ("10.0.0.0/8",)]),
    "hostinfo": st.sampled_from(
        [
            {},
            {"OS": "linux"},
            {"os": "linux", "Secret": "x"},
            {"OS": None, "Services": [{"Proto": "tcp", "Description": None}]},
        ]
    ),
    "roles": st.sampled_from([(), ("admin",), ("admin", "owner")]),
    "cloned": st.booleans(),
    "renews_within": st.sampled_from([0, 3600]),
    "user_id": st.integers(1, 3),
}


@st.composite
def set_nodes(draw: st.DrawFn) -> SetNode:
    names = draw(st.lists(st.sampled_from(sorted(members)), min_size=1, max_size=4, unique=True))
    return SetNode(draw(st.sampled_from(IDS)), tuple((name, draw(members[name])) for name in names))


shared = (
    st.builds(SetShared, st.just("name"), st.sampled_from(["Home", "Casa"]))
    | st.builds(SetShared, st.just("logs_flows"), st.booleans())
    | st.builds(SetShared, st.just("policy"), st.sampled_from(POLICIES))
    | st.builds(SetShared, st.just("suffix"), st.sampled_from(["home.example", "casa.example"]))
    | st.builds(SetShared, st.just("derp_map"), small.map(derp_map))
    | st.builds(
        SetShared,
        st.just("dns"),
        st.sampled_from(
            [
                DNSSnapshot(),
                DNSSnapshot(magic_dns=False),
                DNSSnapshot(resolvers=({"Addr": "1.1.1.1"},), override_local=True),
                DNSSnapshot(split={"corp.example": ({"Addr": "10.0.0.1"},)}, search_paths=("corp.example",)),
            ]
        ),
    )
    | st.builds(
        SetShared,
        st.just("users"),
        st.sampled_from([PEOPLE, PEOPLE | {1: user(1, "Ana")}, PEOPLE | {2: user(2, "Ben"), 4: user(4)}]),
    )
)
single = set_nodes() | st.builds(Remove, st.sampled_from(IDS)) | shared
changes = single | st.lists(single, min_size=2, max_size=4).map(tuple).map(Batch)
histories = st.lists(changes, min_size=1, max_size=12)
tailnets = st.builds(
    lambda ids, policy: tailnet(*(node(node_id, online=node_id % 2 == 0) for node_id in ids), policy=policy),
    st.lists(st.sampled_from(IDS), unique=True),
    st.sampled_from(POLICIES),
)
