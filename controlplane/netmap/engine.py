"""The engine of one tailnet: an immutable snapshot, its changes, and the bytes that each viewer gets.

A change is a new snapshot. :meth:`Engine.update` returns an :class:`Update`, which answers for each viewer
with the smallest message that brings it from the old snapshot to the new one.
Viewers of the same view share one serialised (and compressed) delta. The law, tested with generated
histories: applying the deltas that a node got equals the full map it would get now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson

from controlplane.netmap import builder, primaries
from controlplane.netmap.snapshot import NodeSnapshot, Standing, TailnetSnapshot
from controlplane.netmap.visibility import is_offered, may_see_peers, packet_filter, sees
from wire.control import format_time

# A peer's change in these alone is sent as a patch; anything else sends the whole node.
PATCHABLE = frozenset(
    {
        "endpoints",
        "disco_key",
        "home_derp",
        "online",
        "online_since",  # shown to nobody
        "last_seen",
        "node_key",
        "key_expiry",
        "capability_version",
    }
)
NODE_FIELDS = tuple(NodeSnapshot.__dataclass_fields__)


def changed_fields(old: NodeSnapshot, new: NodeSnapshot) -> set[str]:
    return {name for name in NODE_FIELDS if getattr(old, name) != getattr(new, name)}


def needs_whole_node(new: NodeSnapshot, changed: set[str]) -> bool:
    """Whether a patch cannot say this change: it has no word for "none", and some clients reject a new disco
    key together with being offline."""
    return (
        not changed <= PATCHABLE
        or ("disco_key" in changed and not new.online)
        or ("last_seen" in changed and not new.online and new.last_seen is None)
        or ("home_derp" in changed and not new.home_derp)
        or ("capability_version" in changed and not new.capability_version)
    )


def patch(old: NodeSnapshot, new: NodeSnapshot) -> dict[str, Any] | None:
    """A ``PeerChange`` from one state of a peer to the next; ``None`` when only a whole node will do."""
    changed = changed_fields(old, new)
    if needs_whole_node(new, changed):
        return None
    values: dict[str, tuple[str, Any]] = {
        "endpoints": ("Endpoints", list(new.endpoints)),
        "disco_key": ("DiscoKey", new.disco_key),
        "home_derp": ("DERPRegion", new.home_derp),
        "capability_version": ("Cap", new.capability_version),
        "node_key": ("Key", new.node_key),
        "online": ("Online", new.online),
    }
    content: dict[str, Any] = {"NodeID": new.id}
    content |= {member: value for name, (member, value) in values.items() if name in changed}
    if changed & {"key_expiry", "node_key"}:
        content["KeyExpiry"] = format_time(new.key_expiry)
    if not new.online and new.last_seen is not None and changed & {"online", "last_seen"}:
        content["LastSeen"] = format_time(new.last_seen)
    return content


def differing_nodes(
    old: TailnetSnapshot, new: TailnetSnapshot, among: Iterable[int] | None = None
) -> frozenset[int]:
    """The ids of the nodes that differ; ``among`` names those that may, ``None`` = compare all."""
    before, after = old.nodes, new.nodes
    ids = set(among) if among is not None else before.keys() | after.keys()
    # Untouched nodes are the same object: the comparison of all their members is for the few others.
    ids = {node_id for node_id in ids if before.get(node_id) is not after.get(node_id)}
    return frozenset(node_id for node_id in ids if before.get(node_id) != after.get(node_id))


def _elected(snapshot: TailnetSnapshot, among: set[int] | None = None) -> TailnetSnapshot:
    """The snapshot after the election of who carries which subnet; ``among`` learns whom it changed."""
    moved = primaries.reassigned(snapshot.nodes)
    if among is not None:
        among.update(moved)
    return replace(snapshot, nodes=dict(snapshot.nodes) | moved) if moved else snapshot


def own_profile(tailnet: TailnetSnapshot, viewer: NodeSnapshot) -> bytes:
    """The only profile that a node without peers needs, as a JSON list."""
    user = tailnet.users.get(viewer.user_id)
    own = builder.TAGGED_PROFILE if viewer.tags or user is None else builder.profile(user)
    return orjson.dumps([own])


@dataclass(slots=True)
class _Delta:
    """A delta under construction, for all viewers of one view."""

    changed: dict[int, NodeSnapshot] = field(default_factory=dict)
    removed: list[int] = field(default_factory=list)
    patches: dict[int, dict[str, Any]] = field(default_factory=dict)
    seen_again: list[int] = field(default_factory=list)


class _Roster:
    """The JSON of all offered nodes in one piece; a viewer's peers are that piece without its own place."""

    def __init__(self, nodes: Mapping[int, NodeSnapshot], fragments: Mapping[int, bytes]) -> None:
        self.nodes = nodes  # what it was made from
        self._joined = memoryview(b",".join(fragments.values()))
        self._places: dict[int, tuple[int, int]] = {}
        start = 0
        for node_id, fragment in fragments.items():
            self._places[node_id] = (start, start + len(fragment))
            start += len(fragment) + 1

    def without(self, node_id: int) -> list[memoryview]:
        """The members of a JSON list in pieces to be joined (they are big); none when nobody is left."""
        start, end = self._places.get(node_id, (0, -1))
        # The comma goes too: the one behind, or for the last node the one before.
        before, behind = self._joined[:start], self._joined[end + 1 :]
        if start and not behind:
            before = before[:-1]
        return [piece for piece in (before, behind) if piece]


class Engine:
    """One tailnet's snapshot with the JSON fragments cached from it."""

    def __init__(self, snapshot: TailnetSnapshot) -> None:
        self.snapshot = _elected(snapshot)
        self._fragments: dict[int, tuple[NodeSnapshot, bytes]] = {}
        self._shared: dict[str, bytes] | None = None
        self._roster: _Roster | None = None

    # -- changes

    def update(self, snapshot: TailnetSnapshot, changed: Iterable[int] | None = None) -> Update:
        """Swap in a new snapshot. ``changed`` names the nodes that may differ; ``None`` = compare all."""
        old, among = self.snapshot, None if changed is None else set(changed)
        if among is None or any(
            primaries.is_router(by_id.get(i)) for by_id in (old.nodes, snapshot.nodes) for i in among
        ):
            snapshot = _elected(snapshot, among)
        self.snapshot = snapshot
        ids = differing_nodes(old, snapshot, among)
        for node_id in ids - snapshot.nodes.keys():
            self._fragments.pop(node_id, None)
        if (old.dns, old.derp_map, old.suffix, old.users) != (
            snapshot.dns,
            snapshot.derp_map,
            snapshot.suffix,
            snapshot.users,
        ):
            self._shared = None
        return Update(self, old, snapshot, ids)

    def since(self, old: TailnetSnapshot) -> Update:
        """The one step from an earlier snapshot to the present one, for a viewer that missed some."""
        return Update(self, old, self.snapshot, differing_nodes(old, self.snapshot))

    def with_nodes(self, nodes: Mapping[int, NodeSnapshot | None]) -> Update:
        """Replace (or with ``None`` remove) some nodes at the same version."""
        merged = dict(self.snapshot.nodes)
        for node_id, node in nodes.items():
            if node is None:
                merged.pop(node_id, None)
            else:
                merged[node_id] = node
        return self.update(replace(self.snapshot, nodes=merged), nodes.keys())

    # -- messages

    def peer_fragment(self, node: NodeSnapshot) -> bytes:
        """A peer's JSON, made once per state of the node."""
        cached = self._fragments.get(node.id)
        if cached is not None and cached[0] is node:
            return cached[1]
        fragment = orjson.dumps(builder.peer_node(node))
        if self.snapshot.nodes.get(node.id) is node:
            self._fragments[node.id] = (node, fragment)
        return fragment

    def roster(self) -> _Roster:
        """Everybody who is offered, by ID; made once per snapshot, for all the whole maps of it."""
        nodes = self.snapshot.nodes
        if self._roster is None or self._roster.nodes is not nodes:
            offered = (nodes[node_id] for node_id in sorted(nodes) if is_offered(nodes[node_id]))
            self._roster = _Roster(nodes, {node.id: self.peer_fragment(node) for node in offered})
        return self._roster

    def shared(self) -> dict[str, bytes]:
        """The members that are the same for every node of the tailnet, serialised once."""
        if self._shared is None:
            profiles = [builder.profile(user) for _, user in sorted(self.snapshot.users.items())]
            self._shared = {
                "DNSConfig": orjson.dumps(builder.dns_config(self.snapshot)),
                "DERPMap": orjson.dumps(self.snapshot.derp_map.to_json()),
                "UserProfiles": orjson.dumps([*profiles, builder.TAGGED_PROFILE]),
                "Domain": orjson.dumps(self.snapshot.suffix),
            }
        return self._shared

    def full_map(self, node_id: int, now: datetime, *, peers: bool = True) -> bytes:
        """The JSON of a whole map for one node; raises ``KeyError`` for an unknown one."""
        snapshot, shared = self.snapshot, self.shared()
        viewer = snapshot.nodes[node_id]
        pieces = self.roster().without(node_id) if peers and may_see_peers(viewer) else []
        members = [
            b'"Node":' + self._self_fragment(viewer),
            b'"DERPMap":' + shared["DERPMap"],
            b'"DNSConfig":' + shared["DNSConfig"],
            b'"Domain":' + shared["Domain"],
            b'"UserProfiles":'
            + (shared["UserProfiles"] if may_see_peers(viewer) else own_profile(snapshot, viewer)),
            b'"PacketFilters":' + self._filters(viewer),
            b'"Health":' + orjson.dumps(builder.health(viewer)),
            b'"SSHPolicy":{"rules":[]},"CollectServices":false,"Debug":{"DisableLogTail":true}',
            b'"ControlTime":' + orjson.dumps(format_time(now)),
        ]
        if not pieces:
            return _joined(members)
        return b"".join([b"{", b",".join(members), b',"Peers":[', *pieces, b"]}"])

    def _self_fragment(self, viewer: NodeSnapshot) -> bytes:
        return orjson.dumps(builder.self_node(viewer, self.snapshot))

    def _filters(self, viewer: NodeSnapshot) -> bytes:
        return orjson.dumps({"base": packet_filter(self.snapshot, viewer)})


class Update:
    """One step from a snapshot to the next, and what each viewer must hear of it."""

    def __init__(
        self, engine: Engine, old: TailnetSnapshot, new: TailnetSnapshot, changed: frozenset[int]
    ) -> None:
        self._engine = engine
        self.old = old
        self.new = new
        self.changed = changed
        self._delta: bytes | None = None
        self._shared_members = self._find_shared_members()

    @property
    def is_empty(self) -> bool:
        return not self.changed and not self._shared_members and not self._concerns_each

    @property
    def _concerns_each(self) -> bool:
        """The tailnet's display name, and what it wants to be told, are members of each node's own entry."""
        return (self.old.name, self.old.logs_flows) != (self.new.name, self.new.logs_flows)

    def _find_shared_members(self) -> list[bytes]:
        """Tailnet-wide members that changed; profiles come before or with the peers that need them."""
        members: list[bytes] = []
        shared = self._engine.shared()
        if self.old.derp_map != self.new.derp_map:
            members.append(b'"DERPMap":' + shared["DERPMap"])
        if (self.old.dns, self.old.suffix) != (self.new.dns, self.new.suffix):
            members.append(b'"DNSConfig":' + shared["DNSConfig"])
        if self.old.suffix != self.new.suffix:
            members.append(b'"Domain":' + shared["Domain"])
        if self.old.users != self.new.users:
            members.append(b'"UserProfiles":' + shared["UserProfiles"])
        return members

    def message_for(self, viewer_id: int, now: datetime) -> bytes | None:
        """The JSON that brings one viewer up to date; ``None`` when nothing of this concerns it."""
        viewer, before = self.new.nodes.get(viewer_id), self.old.nodes.get(viewer_id)
        if viewer is None:
            return self._farewell(before, now) if before is not None else None
        if before is None or viewer_id in self.changed or self._concerns_each:
            return self._message_for_changed(before, viewer, now)
        return self._rest(before, viewer) or None

    def _farewell(self, before: NodeSnapshot, now: datetime) -> bytes:
        """A node that was deleted learns that its key has ended, or its client would poll for ever."""
        gone = replace(before, standing=Standing.EXPIRED, key_expiry=before.created)
        members = [
            b'"Node":' + orjson.dumps(builder.self_node(gone, self.new)),
            b'"PacketFilters":{"base":[]}',
            b'"ControlTime":' + orjson.dumps(format_time(now)),
            *self._removed_peers(before),
        ]
        return b"{" + b",".join(members) + b"}"

    def _removed_peers(self, before: NodeSnapshot) -> list[bytes]:
        gone = sorted(node.id for node in self.old.nodes.values() if sees(before, node))
        return [b'"PeersRemoved":' + orjson.dumps(gone)] if gone else []

    def _message_for_changed(
        self, before: NodeSnapshot | None, viewer: NodeSnapshot, now: datetime
    ) -> bytes | None:
        """A viewer that changed itself: its new entry; all or none of its peers if its rights turned."""
        if before is None or may_see_peers(before) != may_see_peers(viewer):
            full = self._engine.full_map(viewer.id, now)
            removed = self._removed_peers(before) if before is not None and not may_see_peers(viewer) else []
            return full if not removed else full[:-1] + b"," + removed[0] + b"}"
        rest = self._rest(before, viewer)
        own = self._own_members(before, viewer)
        if not own:
            return rest or None
        return b"{" + b",".join(own) + (b"," + rest[1:] if rest else b"}")

    def _own_members(self, before: NodeSnapshot, viewer: NodeSnapshot) -> list[bytes]:
        """What a viewer hears of itself."""
        entry, members = builder.self_node(viewer, self.new), []
        if builder.self_node(before, self.old) != entry:
            members.append(b'"Node":' + orjson.dumps(entry))
        if (health := builder.health(viewer)) != builder.health(before):
            members.append(b'"Health":' + orjson.dumps(health))
        return members

    def _rest(self, before: NodeSnapshot, viewer: NodeSnapshot) -> bytes:
        """What a viewer hears of everything but itself; ``b""`` for nothing."""
        if not may_see_peers(viewer):
            return self._for_the_blind(before, viewer)
        if viewer.id in self.changed:
            return self._build_delta(self.changed - {viewer.id})
        if self._delta is None:  # the same bytes for everyone who sees everyone
            self._delta = self._build_delta(self.changed)
        return self._delta

    def _for_the_blind(self, before: NodeSnapshot, viewer: NodeSnapshot) -> bytes:
        """A node without peers hears of the tailnet's settings, and of people only of its own."""
        members = [member for member in self._shared_members if not member.startswith(b'"UserProfiles"')]
        own = own_profile(self.new, viewer)
        if own != own_profile(self.old, before):
            members.append(b'"UserProfiles":' + own)
        return _joined(members)

    def _build_delta(self, changed: Iterable[int]) -> bytes:
        delta = _Delta()
        for node_id in sorted(changed):
            self._add_change(delta, self.old.nodes.get(node_id), self.new.nodes.get(node_id))
        members = list(self._shared_members)
        if delta.changed:
            fragments = (self._engine.peer_fragment(node) for node in delta.changed.values())
            members.append(b'"PeersChanged":[' + b",".join(fragments) + b"]")
        if delta.removed:
            members.append(b'"PeersRemoved":' + orjson.dumps(delta.removed))
        if delta.seen_again:
            members.append(b'"PeerSeenChange":' + orjson.dumps({str(i): False for i in delta.seen_again}))
        if delta.patches:
            members.append(b'"PeersChangedPatch":' + orjson.dumps(list(delta.patches.values())))
        return _joined(members)

    @staticmethod
    def _add_change(delta: _Delta, old: NodeSnapshot | None, new: NodeSnapshot | None) -> None:
        if old is not None and not is_offered(old):
            old = None
        if new is None or not is_offered(new):
            if old is not None:
                delta.removed.append(old.id)
            return
        small = patch(old, new) if old is not None else None
        if old is None or small is None:
            # What others are not shown (NetInfo, say, which changes with every network) is no news to them.
            if old is None or builder.peer_node(old) != builder.peer_node(new):
                delta.changed[new.id] = new
            return
        if len(small) > 1:
            delta.patches[new.id] = small
        if new.online and old.last_seen is not None and not old.online:
            delta.seen_again.append(new.id)


def _joined(members: list[bytes]) -> bytes:
    """A JSON object of these members; ``b""`` when there is none."""
    return b"{" + b",".join(members) + b"}" if members else b""
