"""A tailnet as a policy sees it: a bit for each node, and masks of who is who. Pure.

A world never changes; :meth:`World.changed` derives the next one, in which every node keeps its bit.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.ranges import NODE_RANGES, IPSet, Span, number, parse_prefix
from controlplane.netmap.policy.selectors import DANGER_ALL, MEMBER, ROLE_AUTOGROUPS, TAGGED
from controlplane.netmap.snapshot import EXIT_ROUTES, NodeSnapshot, Standing, UserSnapshot

TAKES_PART = (Standing.ACTIVE, Standing.EXPIRED)


def bit_numbers(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set, in order."""
    text = f"{mask:b}"[::-1] if mask else ""
    place = text.find("1")
    while place >= 0:
        yield place
        place = text.find("1", place + 1)


def mask_of(numbers: Iterable[int], size: int) -> int:
    """The mask with these bits; ``size`` is more than the greatest of them."""
    content = bytearray(size // 8 + 1)
    for one in numbers:
        content[one >> 3] |= 1 << (one & 7)
    return int.from_bytes(content, "little")


def subnets_of(node: NodeSnapshot) -> tuple[str, ...]:
    """The approved prefixes of a node without the two exit routes."""
    return tuple(route for route in node.routes if route not in EXIT_ROUTES)


def is_exit(node: NodeSnapshot) -> bool:
    """Whether it may be used as an exit node: approved for both families."""
    return set(EXIT_ROUTES) <= set(node.routes)


def own_spans(node: NodeSnapshot) -> tuple[Span, Span]:
    """Both addresses of a node, each as a range of one."""
    ipv4, ipv6 = number(node.ipv4), number(node.ipv6)
    return (ipv4, ipv4), (ipv6, ipv6)


class World:
    """The nodes and people of one snapshot under one policy. Masks are ints with a bit for each node."""

    def __init__(
        self, policy: Policy, nodes: Mapping[int, NodeSnapshot], users: Mapping[int, UserSnapshot]
    ) -> None:
        self.policy = policy
        self.nodes = nodes
        self.users = users
        self.bits: dict[int, int] = {}  # node id -> number of its bit
        self.slots: list[NodeSnapshot | None] = []  # by number of bit
        self.everyone = 0  # who takes part: neither waiting for approval nor logged out
        self.exits = 0
        self.by_tag: dict[str, int] = {}
        self.by_user: dict[int, int] = {}  # untagged nodes only
        self.routers: dict[int, IPSet] = {}  # number of bit -> approved subnets
        self._numbers: list[tuple[Span, Span]] = []  # by number of bit: both addresses
        self._by_address: dict[int, int] = {}  # address -> number of bit
        self.tagged = 0
        self._memo: dict[object, int] = {}
        self._people: dict[tuple[str, ...], frozenset[int]] = {}  # the ids behind masks of people
        self._masks: dict[tuple[str, ...], int] = {}  # the masks by the same keys
        self._with_address: dict[IPSet, int] = {}
        self._with_subnet: dict[IPSet, int] = {}
        self._logins: dict[str, list[int]] | None = None
        self._ordered: list[int] | None = None
        self._wildcard: IPSet | None = None
        self._addresses: dict[int, IPSet] = {}

    @classmethod
    def of(
        cls, policy: Policy, nodes: Mapping[int, NodeSnapshot], users: Mapping[int, UserSnapshot]
    ) -> World:
        world = cls(policy, nodes, users)
        world._place_all(sorted(nodes))
        return world

    def changed(
        self,
        nodes: Mapping[int, NodeSnapshot],
        users: Mapping[int, UserSnapshot],
        changed: Collection[int],
    ) -> World:
        """The world after these nodes changed, came or went."""
        world = World(self.policy, nodes, users)
        world.bits, world.slots, world._numbers = dict(self.bits), list(self.slots), list(self._numbers)
        world.everyone, world.exits, world.tagged = self.everyone, self.exits, self.tagged
        world.by_tag, world.by_user = dict(self.by_tag), dict(self.by_user)
        world.routers, world._by_address = dict(self.routers), dict(self._by_address)
        for node_id in changed:
            world._forget(node_id)
        for node_id in sorted(changed):
            if node_id in nodes:
                world._add(nodes[node_id])
        world._hand_on_masks(self, changed)
        if world.routers == self.routers:
            world._wildcard = self.wildcard_sources
        return world

    def _hand_on_masks(self, before: World, changed: Collection[int]) -> None:
        """The masks that were made, with the bits of changed nodes put right."""
        bits = {bit for i in changed for w in (before, self) if (bit := w.bits.get(i)) is not None}
        kept = ~mask_of(bits, len(self.slots) + 1)
        new = [(bit, node) for bit in bits if (node := self.slots[bit]) and (1 << bit) & self.everyone]
        if self.users is before.users or self.users == before.users:
            self._logins, self._people = before._logins, before._people
            for key, mask in before._masks.items():
                people = self._people[key]
                its = (1 << bit for bit, node in new if not node.tags and node.user_id in people)
                self._masks[key] = sum(its, mask & kept)
        for spans, mask in before._with_address.items():
            its = (1 << bit for bit, _ in new if any(spans.contains(a) for a, _ in self._numbers[bit]))
            self._with_address[spans] = sum(its, mask & kept)
        for spans, mask in before._with_subnet.items():
            its = (1 << bit for bit, _ in new if bit in self.routers and self.routers[bit].meets(spans))
            self._with_subnet[spans] = sum(its, mask & kept)

    # -- placing nodes

    def _place_all(self, node_ids: Iterable[int]) -> None:
        """As :meth:`_add` for all, but each mask is made in one go."""
        members: dict[object, list[int]] = {}
        for node_id in node_ids:
            node, bit = self.nodes[node_id], len(self.slots)
            self.bits[node_id] = bit
            self.slots.append(node)
            self._numbers.append(own_spans(node))
            if node.standing in TAKES_PART:
                self._note_addresses(node, bit)
                for key in self._keys(node):
                    members.setdefault(key, []).append(bit)
        masks = {key: mask_of(numbers, len(self.slots)) for key, numbers in members.items()}
        self.everyone, self.exits = masks.pop("everyone", 0), masks.pop("exits", 0)
        self.tagged = masks.pop("tagged", 0)
        for key, mask in masks.items():
            if isinstance(key, int):
                self.by_user[key] = mask
            else:
                self.by_tag[str(key)] = mask

    @staticmethod
    def _keys(node: NodeSnapshot) -> list[object]:
        keys: list[object] = ["everyone", *(("tagged", *node.tags) if node.tags else (node.user_id,))]
        return [*keys, "exits"] if is_exit(node) else keys

    def _note_addresses(self, node: NodeSnapshot, bit: int) -> None:
        (ipv4, _), (ipv6, _) = self._numbers[bit]
        self._by_address[ipv4] = self._by_address[ipv6] = bit
        if subnets := subnets_of(node):
            self.routers[bit] = IPSet.of_prefixes(map(parse_prefix, subnets))

    def _add(self, node: NodeSnapshot) -> None:
        bit = self.bits.get(node.id)
        if bit is None:
            bit = self.bits[node.id] = len(self.slots)
            self.slots.append(None)
            self._numbers.append(own_spans(node))
        self.slots[bit], self._numbers[bit] = node, own_spans(node)
        if node.standing not in TAKES_PART:
            return
        self._note_addresses(node, bit)
        one = 1 << bit
        self.everyone |= one
        for tag in node.tags:
            self.by_tag[tag] = self.by_tag.get(tag, 0) | one
            self.tagged |= one
        if not node.tags:
            self.by_user[node.user_id] = self.by_user.get(node.user_id, 0) | one
        if is_exit(node):
            self.exits |= one

    def _forget(self, node_id: int) -> None:
        """Take a node out of all masks. Its bit stays its own: numbers are not used twice."""
        bit = self.bits.get(node_id)
        node = None if bit is None else self.slots[bit]
        if bit is None or node is None:
            return
        self.slots[bit] = None
        if node_id not in self.nodes:
            del self.bits[node_id]
        if node.standing not in TAKES_PART:
            return
        without = ~(1 << bit)
        self.everyone &= without
        self.exits &= without
        self.tagged &= without
        for tag in node.tags:
            self.by_tag[tag] &= without
        if not node.tags:
            self.by_user[node.user_id] &= without
        self.routers.pop(bit, None)
        for address, _ in self._numbers[bit]:
            if self._by_address.get(address) == bit:
                del self._by_address[address]

    # -- questions

    def ids(self, mask: int) -> list[int]:
        """The ids of the nodes in a mask."""
        return [node.id for bit in bit_numbers(mask) if (node := self.slots[bit]) is not None]

    def bit(self, node_id: int) -> int:
        """The mask of one node; 0 when it is not there or takes no part."""
        number_of_bit = self.bits.get(node_id)
        return 0 if number_of_bit is None else (1 << number_of_bit) & self.everyone

    def of_login(self, login: str) -> int:
        return self._of_people(("login", login), lambda: self._ids_of_login(login))

    def of_domain(self, domain: str) -> int:
        ending = "@" + domain
        return self._of_people(
            ("domain", domain),
            lambda: (user.id for user in self.users.values() if user.login_name.lower().endswith(ending)),
        )

    def of_group(self, group: str) -> int:
        return self._of_people(("group", group), lambda: self._ids_of_group(group))

    def _ids_of_group(self, group: str) -> Iterator[int]:
        for login in self.policy.groups.get(group, ()):
            yield from self._ids_of_login(login)
        yield from (user.id for user in self.users.values() if group in user.groups)

    def of_tag(self, tag: str) -> int:
        return self.by_tag.get(tag, 0)

    def of_autogroup(self, name: str) -> int:
        if name == MEMBER:
            return self._of_people((name,), lambda: self.users)
        if name == TAGGED:
            return self.tagged
        if name == DANGER_ALL:
            return self.everyone
        roles = ROLE_AUTOGROUPS.get(name, frozenset())
        return self._of_people((name,), lambda: (u.id for u in self.users.values() if u.role in roles))

    def owned_with(self, mask: int) -> int:
        """The untagged nodes of all people who own an untagged node of the mask."""
        mask &= self.everyone & ~self.tagged
        owners = {node.user_id for bit in bit_numbers(mask) if (node := self.slots[bit]) is not None}
        return self._owned_by(owners)

    def memo(self, key: object, make: Callable[[], int]) -> int:
        """A mask that is made once in this world."""
        mask = self._memo.get(key)
        if mask is None:
            mask = self._memo[key] = make()
        return mask

    def own_spans(self, bit: int) -> tuple[Span, Span]:
        """Both addresses of the node with this bit."""
        return self._numbers[bit]

    def _of_people(self, key: tuple[str, ...], find: Callable[[], Iterable[int]]) -> int:
        mask = self._masks.get(key)
        if mask is None:
            people = self._people[key] = frozenset(find())
            mask = self._masks[key] = self._owned_by(people)
        return mask

    def _owned_by(self, people: Iterable[int]) -> int:
        mask = 0
        for user_id in people:
            mask |= self.by_user.get(user_id, 0)
        return mask

    def _ids_of_login(self, login: str) -> list[int]:
        if self._logins is None:
            logins: dict[str, list[int]] = {}
            for user in self.users.values():
                logins.setdefault(user.login_name.lower(), []).append(user.id)
            self._logins = logins  # whole, since other threads may ask meanwhile
        return self._logins.get(login, [])

    def with_address_in(self, spans: IPSet) -> int:
        """The nodes one of whose own addresses is in the set."""
        mask = self._with_address.get(spans)
        if mask is None:
            mask = mask_of((bit for span in spans.spans for bit in self._within(span)), len(self.slots) + 1)
            self._with_address[spans] = mask
        return mask

    def _within(self, span: Span) -> Iterable[int]:
        first, last = span
        if first == last:
            bit = self._by_address.get(first)
            return () if bit is None else (bit,)
        if self._ordered is None:
            self._ordered = sorted(self._by_address)
        low, high = bisect_left(self._ordered, first), bisect_right(self._ordered, last)
        return [self._by_address[address] for address in self._ordered[low:high]]

    def with_subnet_in(self, spans: IPSet) -> int:
        """The nodes with an approved subnet that shares an address with the set."""
        mask = self._with_subnet.get(spans)
        if mask is None:
            found = (bit for bit, subnets in self.routers.items() if subnets.meets(spans))
            mask = self._with_subnet[spans] = mask_of(found, len(self.slots) + 1)
        return mask

    def addresses_of(self, mask: int) -> IPSet:
        """Both addresses of each node of a mask."""
        found = self._addresses.get(mask)
        if found is None:
            found = IPSet.of(span for bit in bit_numbers(mask) for span in self._numbers[bit])
            self._addresses[mask] = found
        return found

    @property
    def wildcard_sources(self) -> IPSet:
        """What ``*`` means as a source: what nodes of any tailnet have, and the approved subnets."""
        if self._wildcard is None:
            spans = [span for subnets in self.routers.values() for span in subnets.spans]
            self._wildcard = NODE_RANGES | IPSet.of(spans)
        return self._wildcard
