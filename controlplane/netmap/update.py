"""One step from a state to the next, and what each viewer must hear of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import orjson

from controlplane.netmap import builder
from controlplane.netmap.peers import Fragments
from controlplane.netmap.snapshot import NodeSnapshot, Standing, UserSnapshot
from controlplane.netmap.state import State, changed_fields
from controlplane.netmap.visibility import is_offered, may_see_peers
from wire.control import format_time

# A peer's change in these alone is sent as a patch; anything else sends the whole node.
PATCHABLE = frozenset(
    {
        "endpoints",
        "disco_key",
        "home_derp",
        "online",
        "online_since",  # shown to nobody
        "attributes",  # nor these
        "last_seen",
        "node_key",
        "key_expiry",
        "capability_version",
    }
)


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


def joined(members: list[bytes]) -> bytes:
    """A JSON object of these members; ``b""`` when there is none."""
    return b"{" + b",".join(members) + b"}" if members else b""


def node_member(state: State, node: NodeSnapshot) -> dict[str, Any]:
    """A node's entry for itself."""
    return builder.self_node(node, state.snapshot, state.capabilities(node))


def own_members(state: State, node: NodeSnapshot) -> list[bytes]:
    """What a node is told of itself, whole."""
    return [
        b'"Node":' + orjson.dumps(node_member(state, node)),
        state.packet_filters_member(node),
        b'"SSHPolicy":' + orjson.dumps({"rules": state.ssh_rules(node)}),
        b'"Health":' + orjson.dumps(builder.health(node)),
    ]


@dataclass(slots=True)
class _Delta:
    """A delta under construction, for all viewers of one view."""

    changed: dict[int, bytes] = field(default_factory=dict)
    owners: set[int] = field(default_factory=set)
    removed: list[int] = field(default_factory=list)
    patches: dict[int, dict[str, Any]] = field(default_factory=dict)
    seen_again: list[int] = field(default_factory=list)

    def members(self) -> list[bytes]:
        members = []
        if self.changed:
            members.append(b'"PeersChanged":[' + b",".join(self.changed.values()) + b"]")
        if self.removed:
            members.append(b'"PeersRemoved":' + orjson.dumps(self.removed))
        if self.seen_again:
            members.append(b'"PeerSeenChange":' + orjson.dumps({str(i): False for i in self.seen_again}))
        if self.patches:
            members.append(b'"PeersChangedPatch":' + orjson.dumps(list(self.patches.values())))
        return members


class Update:
    """See the module's docstring. ``changed`` are the ids of the nodes that differ."""

    def __init__(
        self,
        old: State,
        new: State,
        changed: frozenset[int],
        fragments: Fragments,
        full_map: Callable[[int, datetime], bytes],
    ) -> None:
        self.old = old
        self.new = new
        self.changed = changed
        self._fragments = fragments
        self._full_map = full_map
        self._rests: dict[tuple[Hashable, Hashable], bytes] = {}
        self._shared = self._find_shared_members()
        self._is_judged_anew = old.evaluation is not new.evaluation
        self._people = self._find_people()

    @property
    def is_empty(self) -> bool:
        return not (
            self.changed or self._shared or self._people or self._is_judged_anew or self._concerns_each
        )

    @property
    def _concerns_each(self) -> bool:
        """The tailnet's display name, and what it wants to be told, are members of each node's own entry."""
        old, new = self.old.snapshot, self.new.snapshot
        return (old.name, old.logs_flows) != (new.name, new.logs_flows)

    def _find_shared_members(self) -> list[bytes]:
        """Tailnet-wide members that changed."""
        old, new = self.old.snapshot, self.new.snapshot
        if old.derp_map is new.derp_map and old.dns is new.dns and old.suffix == new.suffix:
            return []
        before, after = builder.shared_members(old), builder.shared_members(new)
        return [member for name, member in after.items() if before[name] != member]

    def _find_people(self) -> frozenset[int]:
        """The ids of those whose profile changed."""
        old, new = self.old.snapshot.users, self.new.snapshot.users
        if old is new:
            return frozenset()
        return frozenset(i for i, user in new.items() if i in old and _shown(old[i]) != _shown(user))

    # -- messages

    def message_for(self, viewer_id: int, now: datetime) -> bytes | None:
        """The JSON that brings one viewer up to date; ``None`` when nothing of this concerns it."""
        viewer, before = self.new.snapshot.nodes.get(viewer_id), self.old.snapshot.nodes.get(viewer_id)
        if viewer is None:
            return self._farewell(before, now) if before is not None else None
        if before is None or may_see_peers(before) != may_see_peers(viewer):
            full = self._full_map(viewer_id, now)
            removed = self._removed_peers(before) if before is not None and not may_see_peers(viewer) else []
            return full if not removed else full[:-1] + b"," + removed[0] + b"}"
        own, rest = self._own_changes(before, viewer), self._rest(before, viewer)
        if not own:
            return rest or None
        return b"{" + b",".join(own) + (b"," + rest[1:] if rest else b"}")

    def _farewell(self, before: NodeSnapshot, now: datetime) -> bytes:
        """A node that was deleted learns that its key has ended, or its client would poll for ever."""
        gone = replace(before, standing=Standing.EXPIRED, key_expiry=before.created)
        members = [
            b'"Node":' + orjson.dumps(builder.self_node(gone, self.new.snapshot, {})),
            b'"PacketFilters":{"base":[]}',
            b'"ControlTime":' + orjson.dumps(format_time(now)),
            *self._removed_peers(before),
        ]
        return joined(members)

    def _removed_peers(self, before: NodeSnapshot) -> list[bytes]:
        gone = self.old.peer_ids(before)
        return [b'"PeersRemoved":' + orjson.dumps(gone)] if gone else []

    def _own_changes(self, before: NodeSnapshot, viewer: NodeSnapshot) -> list[bytes]:
        """What a viewer hears of itself."""
        old, new = self.old, self.new
        members: list[bytes] = []
        if viewer.id not in self.changed and not self._is_judged_anew and not self._concerns_each:
            return members
        has_changed = viewer.id in self.changed or self._concerns_each
        if has_changed or old.capabilities(before) != new.capabilities(viewer):
            entry = node_member(new, viewer)
            if node_member(old, before) != entry:
                members.append(b'"Node":' + orjson.dumps(entry))
        if self._is_judged_anew:
            # Each is the same object for as long as nothing of it changed.
            if new.packet_filter(viewer) != old.packet_filter(before):
                members.append(new.packet_filters_member(viewer))
            if (rules := new.ssh_rules(viewer)) != old.ssh_rules(before):
                members.append(b'"SSHPolicy":' + orjson.dumps({"rules": rules}))
        if (health := builder.health(viewer)) != builder.health(before):
            members.append(b'"Health":' + orjson.dumps(health))
        return members

    def _rest(self, before: NodeSnapshot, viewer: NodeSnapshot) -> bytes:
        """What a viewer hears of everything but itself; ``b""`` for nothing."""
        had, has = self.old.has_peers(before), self.new.has_peers(viewer)
        if not (had and has):
            return self._first_or_last_peers(before, viewer)
        if viewer.id in self.changed or viewer.routes or not is_offered(viewer):
            # Others of its view do not see it: neither it nor whose it is.
            return self._build_rest(before, viewer)
        views = self.old.view(before), self.new.view(viewer)
        rest = self._rests.get(views)
        if rest is None:  # the same bytes for everyone who saw and sees the same
            rest = self._rests[views] = self._build_rest(before, viewer)
        return rest

    def _first_or_last_peers(self, before: NodeSnapshot, viewer: NodeSnapshot) -> bytes:
        """A viewer that saw nobody, or sees nobody now. Of people it hears only of those it sees."""
        pieces, people = self._fragments.peers_of(viewer, self.new)
        if not pieces:
            people = frozenset(self._own_profile(before, viewer) | self._people & {viewer.user_id})
        shown = [b'"PeersChanged":[' + b"".join(pieces) + b"]"] if pieces else []
        return joined([*self._shared, *self._profiles(people), *shown, *self._removed_peers(before)])

    def _build_rest(self, before: NodeSnapshot, viewer: NodeSnapshot) -> bytes:
        delta = _Delta()
        for node_id in sorted(self._concerning(before, viewer) - {viewer.id}):
            self._add_change(delta, before, viewer, node_id)
        people = self._people_seen(viewer) | delta.owners | self._own_profile(before, viewer)
        return joined([*self._shared, *self._profiles(people), *delta.members()])

    @staticmethod
    def _own_profile(before: NodeSnapshot, viewer: NodeSnapshot) -> set[int]:
        """A viewer's owner, if it is another one now."""
        return {viewer.user_id} - {before.user_id}

    def _concerning(self, before: NodeSnapshot, viewer: NodeSnapshot) -> set[int]:
        """The nodes that may look different to a viewer: those that changed, and those it may see anew or
        no longer, or by other routes."""
        if not self._is_judged_anew:
            return set(self.changed)
        old, new = self.old, self.new
        moved = {
            i
            for i in self._routers
            if old.routes(before, old.snapshot.nodes[i]) != new.routes(viewer, new.snapshot.nodes[i])
        }
        return set(self.changed) | self._come_and_gone(before, viewer) | moved

    def _come_and_gone(self, before: NodeSnapshot, viewer: NodeSnapshot) -> set[int]:
        """The nodes that the policy shows to a viewer before or after, but not both."""
        old, new = self.old.evaluation, self.new.evaluation
        had, has = old.peers_of(before.id), new.peers_of(viewer.id)
        differing = (had ^ has) | (had | has) & self._renumbered
        return set(old.world.ids(had & differing)) ^ set(new.world.ids(has & differing))

    @cached_property
    def _renumbered(self) -> int:
        """The bits that do not stand for the same node before and after."""
        old, new = self.old.evaluation.world.bits, self.new.evaluation.world.bits
        mask = 0
        for _, bit in old.items() ^ new.items():
            mask |= 1 << bit
        return mask

    @cached_property
    def _routers(self) -> frozenset[int]:
        """The nodes with routes before and after."""
        before, after = self.old.snapshot.nodes, self.new.snapshot.nodes
        return frozenset(i for i, node in before.items() if i in after and (node.routes or after[i].routes))

    def _people_seen(self, viewer: NodeSnapshot) -> set[int]:
        """Those with a new profile whom a viewer sees."""
        if not self._people:
            return set()
        nodes = self.new.snapshot.nodes
        owners = {viewer.user_id} | {nodes[i].user_id for i in self.new.peer_ids(viewer)}
        return owners & self._people

    def _profiles(self, people: Iterable[int]) -> list[bytes]:
        """They come before or with the peers that need them."""
        people = set(people)
        return [builder.profiles_member(self.new.snapshot, people)] if people else []

    def _add_change(self, delta: _Delta, before: NodeSnapshot, viewer: NodeSnapshot, node_id: int) -> None:
        old, new = self.old.snapshot.nodes.get(node_id), self.new.snapshot.nodes.get(node_id)
        if old is not None and not self.old.sees(before, old):
            old = None
        if new is None or not self.new.sees(viewer, new):
            if old is not None:
                delta.removed.append(old.id)
            return
        routes = self.new.routes(viewer, new)
        if old is None:
            delta.changed[new.id] = self._fragments.of(new, routes)
            delta.owners.add(new.user_id)
            return
        had = self.old.routes(before, old)
        small = patch(old, new) if had == routes else None
        if small is None:
            # What others are not shown (NetInfo, say, which changes with every network) is no news to them.
            if builder.peer_node(old, had) != builder.peer_node(new, routes):
                delta.changed[new.id] = self._fragments.of(new, routes)
                if old.user_id != new.user_id:
                    delta.owners.add(new.user_id)
            return
        if len(small) > 1:
            delta.patches[new.id] = small
        if new.online and old.last_seen is not None and not old.online:
            delta.seen_again.append(new.id)


def _shown(user: UserSnapshot) -> tuple[str, str, str]:
    """What others are shown of a person."""
    return user.login_name, user.display_name, user.picture_url
