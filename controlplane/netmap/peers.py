"""A peer's JSON as a viewer gets it, and all of them in one piece for those who see the same. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import orjson

from controlplane.netmap import builder
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot
from controlplane.netmap.state import State
from controlplane.netmap.visibility import is_offered

MAX_ROSTERS = 16  # of the present state; further views are put together for each viewer
MAX_VARIANTS = 256  # of one node, by the routes that lead to it

Pieces = Sequence[bytes | memoryview]


class Roster:
    """The JSON of several nodes in one piece; a viewer's peers are that piece without its own place.

    ``people`` are their owners' ids.
    """

    def __init__(self, fragments: Mapping[int, bytes], people: frozenset[int]) -> None:
        self.people = people
        self._joined = memoryview(b",".join(fragments.values()))
        self._places: dict[int, tuple[int, int]] = {}
        start = 0
        for node_id, fragment in fragments.items():
            self._places[node_id] = (start, start + len(fragment))
            start += len(fragment) + 1

    def without(self, node_id: int) -> Pieces:
        """The members of a JSON list in pieces to be joined (they are big); none when nobody is left."""
        start, end = self._places.get(node_id, (0, -1))
        # The comma goes too: the one behind, or for the last node the one before.
        before, behind = self._joined[:start], self._joined[end + 1 :]
        if start and not behind:
            before = before[:-1]
        return [piece for piece in (before, behind) if piece]


class Fragments:
    """The JSON of nodes as peers, made once for each state of a node and the routes that lead to it."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[NodeSnapshot, dict[tuple[str, ...], bytes]]] = {}
        self._rosters: dict[Hashable, Roster] = {}
        self._rosters_of: State | None = None

    @property
    def held(self) -> set[int]:
        """The ids of the nodes of which there is one."""
        return set(self._made)

    def drop(self, node_id: int) -> None:
        self._made.pop(node_id, None)

    def of(self, node: NodeSnapshot, routes: tuple[str, ...] = ()) -> bytes:
        """One peer's JSON."""
        held = self._made.get(node.id)
        if held is None or held[0] is not node:
            held = self._made[node.id] = (node, {})
        fragment = held[1].get(routes)
        if fragment is None:
            if len(held[1]) >= MAX_VARIANTS:  # policies come and go while a node stays as it is
                held[1].clear()
            fragment = held[1][routes] = orjson.dumps(builder.peer_node(node, routes))
        return fragment

    def peers_of(self, viewer: NodeSnapshot, state: State) -> tuple[Pieces, frozenset[int]]:
        """The members of the list of a viewer's peers, by ID, in pieces; and the ids of all their owners."""
        if not state.has_peers(viewer):  # what these have in common is nothing that they see
            return (), frozenset({viewer.user_id})
        roster = self._roster(viewer, state)
        return roster.without(viewer.id), roster.people | {viewer.user_id}

    def _roster(self, viewer: NodeSnapshot, state: State) -> Roster:
        """What all viewers see who see what this one sees, themselves among it.

        One with routes is seen with them, so no other's piece serves it, nor its own another one.
        """
        if self._rosters_of is not state:
            self._rosters, self._rosters_of = {}, state
        view = (viewer.id, None) if viewer.routes else state.view(viewer)
        roster = self._rosters.get(view)
        if roster is None:
            roster = self._make_roster(viewer, state)
            if len(self._rosters) < MAX_ROSTERS:
                self._rosters[view] = roster
        return roster

    def _make_roster(self, viewer: NodeSnapshot, state: State) -> Roster:
        nodes, ids = state.snapshot.nodes, state.peer_ids(viewer)
        fragments = {i: self.of(nodes[i], state.routes(viewer, nodes[i])) for i in ids}
        if is_offered(viewer):
            fragments[viewer.id] = self.of(viewer)
        people = frozenset(nodes[i].user_id for i in fragments)
        return Roster(dict(sorted(fragments.items())), people)


class Shared:
    """The members that are the same for every node of a tailnet, serialised once."""

    def __init__(self) -> None:
        self._basis: tuple[object, ...] = ()
        self._members: list[bytes] = []

    def of(self, snapshot: TailnetSnapshot) -> list[bytes]:
        basis = (snapshot.dns, snapshot.derp_map, snapshot.suffix)
        if basis != self._basis:
            self._basis, self._members = basis, list(builder.shared_members(snapshot).values())
        return self._members
