"""What the policy lets a person reach from their own devices: answered from the rules, without a packet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from accounts.models import Tailnet
from controlplane.netmap.policy.concerns import targets_between
from controlplane.netmap.policy.model import Target
from controlplane.netmap.policy.ranges import number
from controlplane.netmap.snapshot import EXIT_ROUTES
from controlplane.services.evaluations import Evaluated, evaluated, with_device_of


@dataclass(frozen=True)
class OwnReach:
    """A person's devices (``own``, a mask of the world), and where to rules let them."""

    place: Evaluated
    own: int

    @cached_property
    def reached(self) -> int:
        """The devices that at least one of their own reaches, as a mask."""
        return self.place.reach.of(self.own)

    @property
    def is_everything(self) -> bool:
        """Whether no rule keeps them from any device."""
        everyone = self.place.evaluation.world.everyone
        return self.reached & everyone == everyone

    @cached_property
    def ids(self) -> frozenset[int]:
        """The same by ids."""
        return frozenset(self.place.evaluation.world.ids(self.reached))

    @cached_property
    def _routes(self) -> list[tuple[int, str]]:
        evaluation = self.place.evaluation
        world = evaluation.world
        own = world.ids(self.own)
        routing = [node.id for node in self.place.snapshot.nodes.values() if node.routes]
        return [
            (router, prefix)
            for router in routing
            for prefix in {prefix for one in own for prefix in evaluation.routes_for(one, router)}
        ]

    @property
    def networks(self) -> list[str]:
        """The networks behind devices that they may use."""
        return sorted({prefix for _router, prefix in self._routes if prefix not in EXIT_ROUTES})

    @property
    def exits(self) -> frozenset[int]:
        """The exit nodes that they may choose, by id."""
        return frozenset(router for router, prefix in self._routes if prefix in EXIT_ROUTES)

    def targets(self, node_id: int) -> list[Target]:
        """By which targets of rules they reach a device."""
        return targets_between(self.place.evaluation, self.own, node_id)

    def addresses(self, node_id: int) -> tuple[int, ...]:
        """A device's own addresses, as rules count them."""
        node = self.place.snapshot.nodes.get(node_id)
        return () if node is None else tuple(map(number, _known((node.ipv4, node.ipv6))))


def _known(addresses: Iterable[str]) -> list[str]:
    return [address for address in addresses if address]


def own_reach(tailnet: Tailnet, user_id: int) -> OwnReach:
    """What a person reaches; who has no device yet is told what their first one would reach."""
    place = evaluated(tailnet)
    own = place.evaluation.world.by_user.get(user_id, 0)
    if not own:
        place = with_device_of(place, user_id)
        own = place.evaluation.world.by_user.get(user_id, 0)
    return OwnReach(place, own)
