"""A tailnet as a policy sees it: a bit for each node, and masks of who is who. Immutable, derived cheaply. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.ranges import IPSet
from controlplane.netmap.snapshot import NodeSnapshot, UserSnapshot


class World:
    """The nodes and people of one snapshot under one policy. Masks are ints with a bit for each node."""

    nodes: Mapping[int, NodeSnapshot]
    users: Mapping[int, UserSnapshot]
    policy: Policy
    bits: Mapping[int, int]  # node id -> number of its bit
    everyone: int  # the nodes that take part: neither waiting for approval nor logged out

    @classmethod
    def of(
        cls, policy: Policy, nodes: Mapping[int, NodeSnapshot], users: Mapping[int, UserSnapshot]
    ) -> World:
        raise NotImplementedError

    def changed(
        self,
        nodes: Mapping[int, NodeSnapshot],
        users: Mapping[int, UserSnapshot],
        changed: Iterable[int],
    ) -> World:
        """The world after some nodes changed, came or went."""
        raise NotImplementedError

    def ids(self, mask: int) -> list[int]:
        """The ids of the nodes in a mask."""
        raise NotImplementedError

    def of_login(self, login: str) -> int:
        raise NotImplementedError

    def of_domain(self, domain: str) -> int:
        raise NotImplementedError

    def of_group(self, group: str) -> int:
        raise NotImplementedError

    def of_tag(self, tag: str) -> int:
        raise NotImplementedError

    def of_autogroup(self, name: str) -> int:
        raise NotImplementedError

    def with_address_in(self, spans: IPSet) -> int:
        raise NotImplementedError

    def addresses_of(self, mask: int) -> IPSet:
        raise NotImplementedError
