"""What names nodes or addresses in a policy: ``*``, people, groups, tags, hosts, IP sets, autogroups. Pure.

A selector says two things of a world: which nodes it means (a mask, a bit for each), and which addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.netmap.policy.ranges import EVERYTHING, NOTHING, IPSet

if TYPE_CHECKING:
    from controlplane.netmap.policy.world import World

MEMBER = "autogroup:member"
TAGGED = "autogroup:tagged"
SELF = "autogroup:self"
INTERNET = "autogroup:internet"
DANGER_ALL = "autogroup:danger-all"
NONROOT = "autogroup:nonroot"

# Autogroups of people by their role in the tailnet; an owner is an admin too.
ROLE_AUTOGROUPS: dict[str, frozenset[str]] = {
    "autogroup:owner": frozenset({"owner"}),
    "autogroup:admin": frozenset({"owner", "admin"}),
    "autogroup:it-admin": frozenset({"it-admin"}),
    "autogroup:network-admin": frozenset({"network-admin"}),
    "autogroup:billing-admin": frozenset({"billing-admin"}),
    "autogroup:auditor": frozenset({"auditor"}),
}
# Older spellings that the language still takes.
AUTOGROUP_SPELLINGS = {"autogroup:members": MEMBER}
PEOPLE_AUTOGROUPS = frozenset({MEMBER, *ROLE_AUTOGROUPS})


@dataclass(frozen=True, slots=True)
class Selector:
    """``text`` is what the file says, without ports; ``offset`` where."""

    text: str
    offset: int = 0

    def mask(self, world: World) -> int:
        """The nodes that it means, as bits of ``world``."""
        raise NotImplementedError

    def addresses(self, world: World) -> IPSet:
        """The addresses that packets from it bear: those of its nodes, unless it names addresses itself."""
        return world.addresses_of(self.mask(world))


@dataclass(frozen=True, slots=True)
class Anything(Selector):
    """``*``: as a source every node and what approved routes lead to; as a target every address."""

    def mask(self, world: World) -> int:
        return world.everyone

    def addresses(self, world: World) -> IPSet:
        return world.wildcard_sources


@dataclass(frozen=True, slots=True)
class User(Selector):
    """A login name: that person's untagged nodes."""

    def mask(self, world: World) -> int:
        return world.of_login(self.text)


@dataclass(frozen=True, slots=True)
class Domain(Selector):
    """``user:*@example.com``: the untagged nodes of all people of a domain."""

    domain: str = ""

    def mask(self, world: World) -> int:
        return world.of_domain(self.domain)


@dataclass(frozen=True, slots=True)
class Group(Selector):
    """``group:…``: the untagged nodes of its people, from the file or the identity provider."""

    def mask(self, world: World) -> int:
        return world.of_group(self.text)


@dataclass(frozen=True, slots=True)
class Tag(Selector):
    """``tag:…``: the nodes that bear it."""

    def mask(self, world: World) -> int:
        return world.of_tag(self.text)


@dataclass(frozen=True, slots=True)
class Autogroup(Selector):
    """``autogroup:…``; ``self`` means nothing without the source it stands beside."""

    def mask(self, world: World) -> int:
        return world.of_autogroup(self.text)

    def addresses(self, world: World) -> IPSet:
        return EVERYTHING if self.text == DANGER_ALL else world.addresses_of(self.mask(world))


@dataclass(frozen=True, slots=True)
class Addresses(Selector):
    """An address, prefix, range, host, IP set or ``autogroup:internet``: addresses known from the file.

    It means the nodes that have such an address, and those whose approved subnets hold some.
    ``internet``: it is (a part of) ``autogroup:internet``, which exit nodes lead to.
    """

    spans: IPSet = NOTHING
    internet: bool = False

    def mask(self, world: World) -> int:
        found = world.with_address_in(self.spans) | world.with_subnet_in(self.spans)
        return found | world.exits if self.internet else found

    def addresses(self, world: World) -> IPSet:
        return self.spans
