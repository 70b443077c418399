"""What the access policy decides about devices that join, routes they offer, and tags they are given.

The app above, which has the policy, implements it and registers it when it starts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from accounts.models import Tailnet, User
from nodes.addresses import Span
from nodes.models import Node


class Policy(Protocol):
    """The decisions. Each needs the tailnet's open scope."""

    def may_use_tags(self, tailnet: Tailnet, user: User, tags: Collection[str]) -> bool:
        """Whether the person may give their own device these tags."""

    def foreign_tags(self, tailnet: Tailnet, user: User, tags: Collection[str]) -> list[str]:
        """Those of ``tags`` that the person does not own, and so gives to no device; none before the policy
        defines any."""

    def tags_give(self, tailnet: Tailnet, having: Collection[str], tag: str) -> bool:
        """Whether what has these tags may give this one: it owns it."""

    def unknown_tags(self, tailnet: Tailnet, tags: Collection[str]) -> list[str]:
        """Those of ``tags`` that nobody can be given, because the policy defines others only."""

    def approved_routes(self, node: Node, prefixes: Collection[str]) -> Collection[str]:
        """Those of the offered prefixes that policy approves by itself."""

    def address_pool(self, tailnet: Tailnet, user: User | None, tags: Collection[str]) -> Sequence[Span]:
        """The IPv4 addresses of which a new device of theirs, or with these tags, gets one; none = any."""


class NoPolicy:
    """Without a policy nobody gives tags of their own, and nothing is approved by itself."""

    def may_use_tags(self, tailnet: Tailnet, user: User, tags: Collection[str]) -> bool:
        return False

    def foreign_tags(self, tailnet: Tailnet, user: User, tags: Collection[str]) -> list[str]:
        return []

    def tags_give(self, tailnet: Tailnet, having: Collection[str], tag: str) -> bool:
        return False

    def unknown_tags(self, tailnet: Tailnet, tags: Collection[str]) -> list[str]:
        return []

    def approved_routes(self, node: Node, prefixes: Collection[str]) -> Collection[str]:
        return ()

    def address_pool(self, tailnet: Tailnet, user: User | None, tags: Collection[str]) -> Sequence[Span]:
        return ()


_policies: list[Policy] = []


def register_policy(policy: Policy) -> None:
    """Have this one decide from now on."""
    _policies.append(policy)


def access_policy() -> Policy:
    """The policy that decides."""
    return _policies[-1] if _policies else NoPolicy()
