"""What the section ``ssh`` means for each node: the rules that its client gets, and who is checked. Pure.

Rules that check come before those that accept, whatever their order in the file; a client takes the first
that fits. A rule that names people by their login (``localpart:``) is taken apart into one for each owner of
its sources, and reaches these owners' own devices as well: so does Tailscale's own service.
Source: tailscale tailcfg/tailcfg.go (SSHPolicy, SSHRule, SSHAction).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.netmap.policy.domains import require_domain
from controlplane.netmap.policy.model import Policy, SSHRule
from controlplane.netmap.policy.parse_ssh import CHECK, LOCALPART
from controlplane.netmap.policy.postures import meeting
from controlplane.netmap.policy.selectors import NONROOT, SELF, Domain
from controlplane.netmap.policy.subjects import domain_of
from controlplane.netmap.policy.world import TAKES_PART, World
from controlplane.netmap.snapshot import NodeSnapshot, UserSnapshot

DEFAULT_CHECK_SECONDS = 12 * 3600
HOLD_PATH = "/machine/ssh/action/"
# The client fills in the variables and asks over its control connection: the host is never looked up.
HOLD_URL = f"https://unused{HOLD_PATH}$SRC_NODE_ID/to/$DST_NODE_ID?local_user=$LOCAL_USER"
ACCEPTED: dict[str, Any] = {
    "accept": True,
    "allowAgentForwarding": True,
    "allowLocalPortForwarding": True,
    "allowRemotePortForwarding": True,
}
HELD: dict[str, Any] = {"holdAndDelegate": HOLD_URL}


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """A rule as some nodes get it: ``sources`` may be ``users`` there (``=``: whom they ask for)."""

    rule: SSHRule
    sources: int
    users: Mapping[str, str]
    wire: dict[str, Any]

    def lets_in_as(self, user: str) -> bool:
        return bool(self.users.get(user, self.users.get("*", "")))


@dataclass(frozen=True, slots=True)
class Verdict:
    """How somebody gets in: by a check at most ``check_seconds`` old (0 = a new one); ``None`` = at once."""

    check_seconds: int | None


def in_order(rules: Iterable[SSHRule]) -> list[SSHRule]:
    """As they are tried: the stricter first."""
    return sorted(rules, key=lambda rule: rule.action != CHECK)


def local_users(users: Iterable[str]) -> dict[str, str]:
    """Who may be whom on the device, as on the wire; root is shut out unless it is named."""
    names = [user for user in users if not user.startswith(LOCALPART)]
    mapped = {user: user for user in names if user not in (NONROOT, "root")}
    if NONROOT in names:
        mapped["*"] = "="
    return mapped | {"root": "root" if "root" in names else ""}


def localpart_of(login: str, users: Iterable[str]) -> str:
    """The local user that a login stands for by ``localpart:*@domain``; empty when by none."""
    domain = domain_of(login)
    fits = domain and any(user.lower() == LOCALPART + domain for user in users)
    return login.rpartition("@")[0] if fits else ""


def names_people(users: Iterable[str]) -> bool:
    return any(user.startswith(LOCALPART) for user in users)


def check_domains(policy: Policy, users: Mapping[int, UserSnapshot]) -> None:
    """Refuse a domain in ``ssh`` to which nobody of the tailnet belongs."""
    logins = [user.login_name for user in users.values()]
    for rule in policy.ssh:
        for source in rule.sources:
            if isinstance(source, Domain):
                require_domain(source.domain, logins, source.offset)
        for user in rule.users:
            if user.startswith(LOCALPART):
                require_domain(user.removeprefix(LOCALPART), logins, rule.offset)


Made = tuple[tuple[Grant, ...], list[dict[str, Any]]]  # what a node is granted, and the same as on the wire


class SSHRules:
    """The rules of a policy in one world. Immutable; what is asked for is made once."""

    __slots__ = ("_before", "_made", "_rules", "world")

    def __init__(self, world: World, rules: tuple[_RuleInWorld, ...]) -> None:
        self.world = world
        self._rules = rules
        self._made: dict[int, Made] = {}
        self._before: Mapping[int, Made] = {}  # of the world before

    @classmethod
    def of(cls, world: World) -> SSHRules:
        return cls(world, _in_world(world))

    def updated(self, world: World, changed: Iterable[int] | None = None) -> SSHRules:
        """The same policy in the next world; ``changed`` are the nodes that may differ (``None`` = all)."""
        if changed is None or world.users != self.world.users:
            return SSHRules.of(world)
        before, after = self.world.nodes, world.nodes
        touched = [
            node_id for node_id in changed if _facts(before.get(node_id)) != _facts(after.get(node_id))
        ]
        rules, stale = _in_world(world), 0
        for old, new in zip(self._rules, rules, strict=True):
            stale |= new.follow(old, touched)
        following = SSHRules(world, rules)
        following._made, following._before = dict(self._made), self._made
        for node_id in (*world.ids(stale), *touched):
            following._made.pop(node_id, None)
        return following

    def of_node(self, node_id: int) -> list[dict[str, Any]]:
        """The rules of a node as on the wire; the same list for as long as they are the same."""
        made = self._made.get(node_id)
        if made is None:
            grants, made = self._grants(node_id), self._before.get(node_id)
            if made is None or made[0] != grants:
                made = grants, [grant.wire for grant in grants]
            self._made[node_id] = made
        return made[1]

    def verdict(self, source: int, target: int, user: str) -> Verdict | None:
        """How a node gets into another as this local user; ``None`` when not at all."""
        bit = self.world.bits.get(source)
        if bit is None:
            return None
        for grant in self._grants(target):
            if grant.sources >> bit & 1 and grant.lets_in_as(user):
                return Verdict(check_seconds(grant.rule))
        return None

    def _grants(self, node_id: int) -> tuple[Grant, ...]:
        node, bit = self.world.nodes.get(node_id), self.world.bits.get(node_id)
        if node is None or bit is None or node.standing not in TAKES_PART:
            return ()
        owner, place, shift = _owner(node), bit >> 3, bit & 7
        found: list[Grant] = []
        for rule in self._rules:
            targets = rule.target_bytes
            if place < len(targets) and targets[place] >> shift & 1:
                found += rule.on_targets()
            elif rule.has_own:
                found += rule.on_own().get(owner, ())
        return tuple(found)


def check_seconds(rule: SSHRule) -> int | None:
    """How old a sign-in may be for a rule; ``None`` when it asks for none."""
    if rule.action != CHECK:
        return None
    return DEFAULT_CHECK_SECONDS if rule.check_period is None else rule.check_period


def _in_world(world: World) -> tuple[_RuleInWorld, ...]:
    met: dict[tuple[str, ...], int] = {}
    compiled = []
    for rule in in_order(world.policy.ssh):
        if rule.postures not in met:
            met[rule.postures] = meeting(world, rule.postures)
        sources = targets = 0
        for selector in rule.sources:
            sources |= selector.mask(world)
        for selector in rule.targets:
            targets |= 0 if selector.text == SELF else selector.mask(world)
        compiled.append(_RuleInWorld(world, rule, sources & met[rule.postures], targets))
    return tuple(compiled)


class _RuleInWorld:
    """One rule with the nodes it is about; its grants are worked out when a node first needs them."""

    __slots__ = ("_own", "_shared", "_world", "has_own", "rule", "sources", "target_bytes", "targets")

    def __init__(self, world: World, rule: SSHRule, sources: int, targets: int) -> None:
        self._world = world
        self.rule, self.sources, self.targets = rule, sources, targets
        self._own: dict[int, tuple[Grant, ...]] | None = None
        self._shared: tuple[Grant, ...] | None = None
        # Whether it reaches devices of the owners of its sources.
        self.has_own = names_people(rule.users) or any(target.text == SELF for target in rule.targets)
        # To look at one bit of a long number costs as much as to copy it.
        self.target_bytes = targets.to_bytes(targets.bit_length() // 8 + 1, "little")

    def follow(self, old: _RuleInWorld, touched: Iterable[int]) -> int:
        """Take over what the rule had made in the world before; the nodes for which it may differ now.

        All of it stands if it has the same sources and none of them was touched.
        """
        own = {node_id for node_id in touched if self.has_source(node_id) or old.has_source(node_id)}
        if self.sources == old.sources and not own:
            self._own, self._shared = old._own, old._shared
            return self.targets ^ old.targets
        stale = self.targets | old.targets
        if self.has_own:
            for rule, others in ((self, self.sources & ~old.sources), (old, old.sources & ~self.sources)):
                stale |= rule.owned_with({*own, *rule._world.ids(others)})
        return stale

    def owned_with(self, node_ids: Iterable[int]) -> int:
        """All nodes of the owners of these."""
        nodes = self._world.nodes
        owners = {_owner(nodes[node_id]) for node_id in node_ids if node_id in nodes}
        mask = 0
        for owner in owners:
            mask |= self._world.by_user.get(owner, 0) if owner > 0 else 1 << self._world.bits[-owner]
        return mask

    def has_source(self, node_id: int) -> bool:
        bit = self._world.bits.get(node_id)
        return bit is not None and bool(self.sources >> bit & 1)

    def on_targets(self) -> tuple[Grant, ...]:
        """What it grants on each of its targets."""
        if self._shared is None:
            if names_people(self.rule.users):
                self._shared = tuple(grant for grants in self.on_own().values() for grant in grants)
            elif self.sources:
                self._shared = (self._grant(self.sources, local_users(self.rule.users)),)
            else:
                self._shared = ()
        return self._shared

    def on_own(self) -> dict[int, tuple[Grant, ...]]:
        """What each owner of a source is granted on all devices of their own."""
        if self._own is None:
            owners = sorted(self._by_owner().items())
            self._own = {owner: self._for_owner(owner, sources) for owner, sources in owners}
        return self._own

    def _by_owner(self) -> dict[int, int]:
        owners: dict[int, int] = defaultdict(int)
        for node_id in self._world.ids(self.sources):
            owners[_owner(self._world.nodes[node_id])] |= 1 << self._world.bits[node_id]
        return owners

    def _for_owner(self, owner: int, sources: int) -> tuple[Grant, ...]:
        user = self._world.users.get(owner)
        grants = [self._grant(sources, local_users(self.rule.users))]
        if user is not None and (local := localpart_of(user.login_name, self.rule.users)):
            grants.append(self._grant(sources, {local: local}))
        return tuple(grants)

    def _grant(self, sources: int, users: dict[str, str]) -> Grant:
        nodes = [self._world.nodes[node_id] for node_id in sorted(self._world.ids(sources))]
        wire: dict[str, Any] = {
            "principals": [{"nodeIP": node.ipv4} for node in nodes if node.ipv4]
            + [{"nodeIP": node.ipv6} for node in nodes if node.ipv6],
            "sshUsers": users,
            "action": HELD if self.rule.action == CHECK else ACCEPTED,
        }
        if self.rule.accept_env:
            wire["acceptEnv"] = list(self.rule.accept_env)
        return Grant(self.rule, sources, users, wire)


def _facts(node: NodeSnapshot | None) -> tuple[Any, ...]:
    """What of a node goes into grants. One that takes no part is followed by none: it begins anew."""
    return () if node is None else (node.standing, node.ipv4, node.ipv6, node.user_id, node.tags)


def _owner(node: NodeSnapshot) -> int:
    """Whose device it is: a person's id; a tagged one is its own, which the negative of its id stands for."""
    return -node.id if node.tags else node.user_id
