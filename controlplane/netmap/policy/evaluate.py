"""What a policy means for each node of a tailnet. Immutable; the next one is derived from the last. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.world import World
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot


class Evaluation:
    """A policy against one snapshot; what is asked for a node is made when it is first asked for."""

    policy: Policy
    world: World

    @classmethod
    def of(cls, policy: Policy, snapshot: TailnetSnapshot) -> Evaluation:
        raise NotImplementedError

    def updated(self, snapshot: TailnetSnapshot, changed: Iterable[int] | None = None) -> Evaluation:
        """The same policy against the next snapshot; ``changed`` names the nodes that may differ (``None`` = all).

        Equals :meth:`of` of that snapshot, at the price of what changed. What did not change for a node is
        the same object.
        """
        raise NotImplementedError

    def peers_of(self, node_id: int) -> int:
        """The nodes that this one sees, as a mask of ``world``: a rule lets one of the two reach the other."""
        raise NotImplementedError

    def sees(self, viewer: int, peer: int) -> bool:
        raise NotImplementedError

    def routes_for(self, viewer: int, peer: int) -> tuple[str, ...]:
        """The prefixes of ``peer`` that this viewer is to use: subnets that it may reach, and exit routes."""
        raise NotImplementedError

    def view_key(self, node_id: int) -> Hashable:
        """Equal for viewers that see the same peers (themselves aside) with the same routes."""
        raise NotImplementedError

    def filter_of(self, node_id: int) -> list[dict[str, Any]]:
        """The packet filter of a node as on the wire, reduced to its addresses and routes."""
        raise NotImplementedError

    def ssh_of(self, node_id: int) -> list[dict[str, Any]]:
        """The SSH rules of a node as on the wire."""
        raise NotImplementedError

    def capabilities_of(self, node_id: int) -> dict[str, Any]:
        """What the policy adds to a node's own capabilities (``CapMap``)."""
        raise NotImplementedError

    def may_own(self, tag: str, *, user_id: int = 0, tags: Iterable[str] = ()) -> bool:
        """Whether this person, or a node or key with these tags, may give ``tag`` to a node."""
        raise NotImplementedError

    def approves(self, node: NodeSnapshot, prefix: str) -> bool:
        """Whether ``autoApprovers`` lets this node serve this prefix without anybody's approval."""
        raise NotImplementedError
