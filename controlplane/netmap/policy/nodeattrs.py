"""What the section ``nodeAttrs`` adds to a node's own capabilities, and which addresses it may get. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controlplane.netmap.policy.model import NodeAttributes, Policy
from controlplane.netmap.policy.parse_nodeattrs import RESERVED
from controlplane.netmap.policy.ranges import IPSet
from controlplane.netmap.policy.selectors import Addresses
from controlplane.netmap.policy.subjects import Subject, is_named
from controlplane.netmap.policy.world import World

FUNNEL = "funnel"
# What a client asks for before it offers something to the internet, and that certificates are missing.
FUNNEL_NEEDS: tuple[str, ...] = (
    "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000",
    "https://tailscale.com/cap/warn-funnel-no-https",
)
RANDOM_PORT = "randomize-client-port"
NO_IPV4 = "disable-ipv4"
ONE_ROUTE = {"mac-always": "one-cgnat?v=true", "mac-never": "one-cgnat?v=false"}


class Capabilities:
    """The capabilities of a policy in one world. Immutable; masks are made once, a node's map once."""

    __slots__ = ("_made", "_masks", "_of_node", "_without_ipv4", "world")

    def __init__(self, world: World) -> None:
        self.world = world
        self._masks = tuple(_mask(entry, world) for entry in world.policy.node_attrs)
        self._made: dict[tuple[bool, ...], dict[str, Any]] = {}
        self._of_node: dict[int, dict[str, Any]] = {}
        self._without_ipv4: frozenset[int] | None = None

    @classmethod
    def of(cls, world: World) -> Capabilities:
        return cls(world)

    def updated(self, world: World, changed: Iterable[int] | None = None) -> Capabilities:
        """The same policy in the next world; ``changed`` are the nodes that may differ (``None`` = all).

        Nodes with the same attributes keep the same map.
        """
        following = Capabilities(world)
        following._made = self._made
        if changed is not None:
            stale = 0
            for old, new in zip(self._masks, following._masks, strict=True):
                stale |= old ^ new
            following._of_node = dict(self._of_node)
            for node_id in (*world.ids(stale), *changed):
                following._of_node.pop(node_id, None)
        return following

    @property
    def without_ipv4(self) -> frozenset[int]:
        """The nodes that are to have no IPv4 address in the tailnet."""
        if self._without_ipv4 is None:
            self._without_ipv4 = self._find_without_ipv4()
        return self._without_ipv4

    def _find_without_ipv4(self) -> frozenset[int]:
        policy, mask = self.world.policy, 0
        if policy.disable_ipv4:
            return frozenset(self.world.nodes)
        for entry, its in zip(policy.node_attrs, self._masks, strict=True):
            mask |= its if NO_IPV4 in entry.attributes else 0
        return frozenset(self.world.ids(mask))

    def of_node(self, node_id: int) -> dict[str, Any]:
        """What a node's ``CapMap`` gets; the same object for all nodes that get the same."""
        found = self._of_node.get(node_id)
        if found is None:
            found = self._of_node[node_id] = self._look_up(node_id)
        return found

    def _look_up(self, node_id: int) -> dict[str, Any]:
        node, bit = self.world.nodes.get(node_id), self.world.bits.get(node_id)
        if node is None or bit is None:
            return {}
        is_mac = node.attributes.get("node:os") == "macos"
        chosen = tuple(bool(mask >> bit & 1) for mask in self._masks)
        made = self._made.get((is_mac, *chosen))
        if made is None:
            made = self._made[is_mac, *chosen] = _capabilities(self.world.policy, chosen, is_mac)
        return made


def _mask(entry: NodeAttributes, world: World) -> int:
    mask = 0
    for target in entry.targets:
        if isinstance(target, Addresses):  # who has an address in it, not the routers to it
            mask |= world.with_address_in(target.spans)
        else:
            mask |= target.mask(world)
    return mask


def _capabilities(policy: Policy, chosen: Iterable[bool], is_mac: bool) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if policy.randomize_client_port:
        content[RANDOM_PORT] = None
    if policy.disable_ipv4:
        content[NO_IPV4] = None
    if is_mac and policy.one_cgnat_route in ONE_ROUTE:
        content[ONE_ROUTE[policy.one_cgnat_route]] = None
    for entry, takes_part in zip(policy.node_attrs, chosen, strict=True):
        if takes_part:
            _add(content, entry)
    return content


def _add(content: dict[str, Any], entry: NodeAttributes) -> None:
    for name in entry.attributes:
        content.setdefault(name, None)
        if name == FUNNEL:
            content |= dict.fromkeys(FUNNEL_NEEDS)
    for name, values in entry.app.items():
        content[name] = [*(content.get(name) or ()), *values]


def pool_for(policy: Policy, subject: Subject) -> IPSet:
    """The IPv4 addresses of which a new device of this subject gets one; empty = any that is free.

    Of several pools that fit, the first one counts.
    """
    for entry in policy.node_attrs:
        if entry.ip_pool and any(is_named(subject, target, policy) for target in entry.targets):
            return IPSet.of_prefixes(entry.ip_pool) - IPSet.of_prefixes(RESERVED)
    return IPSet()
