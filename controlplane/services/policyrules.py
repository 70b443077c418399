"""The access policy as devices meet it: who may give which tag, which offers need nobody's approval."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from accounts.models import Tailnet, User
from controlplane.netmap.policy.approvers import may_own, subject_of, undefined_tags
from controlplane.netmap.policy.nodeattrs import pool_for
from controlplane.policies import load_policy
from controlplane.services.policy import approved
from controlplane.snapshots import load_part
from nodes.addresses import Span
from nodes.models import Node


class AccessPolicy:
    """Implements :class:`nodes.policy.Policy` by the policy in force."""

    def may_use_tags(self, tailnet: Tailnet, user: User, tags: Collection[str]) -> bool:
        """Owners of the tags may, and who may write the policy. Nobody has a tag that it does not define."""
        part = load_part(tailnet, user_ids=[user.pk])
        subject = subject_of(part.users.get(user.pk), ())
        return all(may_own(part.policy, tag, subject) for tag in tags)

    def foreign_tags(self, tailnet: Tailnet, user: User, tags: Collection[str]) -> list[str]:
        part = load_part(tailnet, user_ids=[user.pk])
        if not part.policy.tag_owners:
            return []
        subject = subject_of(part.users.get(user.pk), ())
        return sorted(tag for tag in tags if not may_own(part.policy, tag, subject))

    def tags_give(self, tailnet: Tailnet, having: Collection[str], tag: str) -> bool:
        return bool(having) and may_own(load_policy(tailnet), tag, subject_of(None, having))

    def unknown_tags(self, tailnet: Tailnet, tags: Collection[str]) -> list[str]:
        """Before a policy defines any tag, all may be given: whoever writes none needs no list of tags."""
        policy = load_policy(tailnet)
        return undefined_tags(policy, tags) if policy.tag_owners else []

    def approved_routes(self, node: Node, prefixes: Collection[str]) -> Collection[str]:
        approvers = load_policy(node.tailnet).auto_approvers
        if not prefixes or not (approvers.routes or approvers.exit_node):
            return ()
        part = load_part(node.tailnet, node_ids=[node.pk])
        return approved(part.policy, part.nodes[node.pk], prefixes, part.users)

    def address_pool(self, tailnet: Tailnet, user: User | None, tags: Collection[str]) -> Sequence[Span]:
        policy = load_policy(tailnet)
        if not any(entry.ip_pool for entry in policy.node_attrs):
            return ()
        part = load_part(tailnet, user_ids=[user.pk] if user is not None else [])
        known = part.users.get(user.pk) if user is not None else None
        return pool_for(part.policy, subject_of(known, tags)).spans
