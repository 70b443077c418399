"""Who may give tags to nodes, and whose routes need no approval. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.ranges import Prefix, parse_prefix
from controlplane.netmap.policy.subjects import Subject, is_named, of_node
from controlplane.netmap.snapshot import EXIT_ROUTES, NodeSnapshot, UserSnapshot

# These own every tag of the file, whether it says so or not.
OWNERS_OF_ALL_TAGS = frozenset({"owner", "admin", "network-admin"})


def may_own(policy: Policy, tag: str, subject: Subject) -> bool:
    """Whether a person, or what bears tags, may give ``tag``; only tags of the file can be given.

    What bears a tag may give that tag, and those that it owns.
    """
    owners = policy.tag_owners.get(tag)
    if owners is None:
        return False
    if tag in subject.tags:
        return True
    if subject.user is not None and not subject.tags and subject.user.role in OWNERS_OF_ALL_TAGS:
        return True
    return any(is_named(subject, owner, policy) for owner in owners)


def subject_of(user: UserSnapshot | None, tags: Iterable[str]) -> Subject:
    """A person, or what bears these tags: then the person who made it has no say."""
    tags = frozenset(tags)
    known = None if tags else user
    return Subject(known.login_name if known else "", known, tags)


def approves(policy: Policy, node: NodeSnapshot, prefix: str, users: Mapping[int, UserSnapshot]) -> bool:
    """Whether ``autoApprovers`` lets a node serve a prefix, or be an exit node, without being asked."""
    subject = of_node(node, users)
    if prefix in EXIT_ROUTES:
        return any(is_named(subject, owner, policy) for owner in policy.auto_approvers.exit_node)
    wanted = parse_prefix(prefix)
    return any(
        covers(outer, wanted) and any(is_named(subject, owner, policy) for owner in owners)
        for outer, owners in policy.auto_approvers.routes
    )


def covers(outer: Prefix, inner: Prefix) -> bool:
    """Whether a prefix holds all of another."""
    return outer.first <= inner.first and inner.last <= outer.last


def undefined_tags(policy: Policy, tags: Iterable[str]) -> list[str]:
    """Those of these tags that the file does not know."""
    return sorted(tag for tag in tags if tag not in policy.tag_owners)
