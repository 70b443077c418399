"""What names nodes or addresses in a policy: ``*``, people, groups, tags, hosts, IP sets, autogroups. Pure.

A selector says two things of a world: which nodes it means (a mask, a bit for each), and which addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controlplane.netmap.policy.ranges import EVERYTHING, IPSet, Prefix

if TYPE_CHECKING:
    from controlplane.netmap.policy.world import World

# Autogroups of people by their role in the tailnet; an owner is an admin too.
ROLE_AUTOGROUPS = {
    "autogroup:owner": frozenset({"owner"}),
    "autogroup:admin": frozenset({"owner", "admin"}),
    "autogroup:it-admin": frozenset({"it-admin"}),
    "autogroup:network-admin": frozenset({"network-admin"}),
    "autogroup:billing-admin": frozenset({"billing-admin"}),
    "autogroup:auditor": frozenset({"auditor"}),
}
MEMBER = "autogroup:member"
TAGGED = "autogroup:tagged"
SELF = "autogroup:self"
INTERNET = "autogroup:internet"
DANGER_ALL = "autogroup:danger-all"
NONROOT = "autogroup:nonroot"


@dataclass(frozen=True, slots=True)
class Selector:
    """``text`` is what the file says, without ports; ``offset`` where."""

    text: str
    offset: int = 0

    def mask(self, world: World) -> int:
        """The nodes that it means, as bits of ``world``."""
        raise NotImplementedError

    def addresses(self, world: World) -> IPSet:
        """The addresses that it means: those of its nodes, unless it names addresses itself."""
        return world.addresses_of(self.mask(world))

    @property
    def names_addresses(self) -> bool:
        """Whether it means addresses, whoever has them, and not nodes."""
        return False


@dataclass(frozen=True, slots=True)
class Anything(Selector):
    """``*``: as a source every node and what approved routes lead to; as a target every address."""

    def mask(self, world: World) -> int:
        return world.everyone

    def addresses(self, world: World) -> IPSet:
        return EVERYTHING


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
    """``autogroup:…``; ``self`` and ``internet`` mean nothing without the rule they stand in."""

    def mask(self, world: World) -> int:
        return world.of_autogroup(self.text)


@dataclass(frozen=True, slots=True)
class Addresses(Selector):
    """An address, a prefix, a range, a name of ``hosts`` or an IP set: addresses known from the file.

    ``spelled`` holds them as they were written (hosts resolved), for destinations on the wire.
    """

    spans: IPSet = IPSet()
    prefixes: tuple[Prefix, ...] = ()

    def mask(self, world: World) -> int:
        return world.with_address_in(self.spans)

    def addresses(self, world: World) -> IPSet:
        return self.spans

    @property
    def names_addresses(self) -> bool:
        return True
