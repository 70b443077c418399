"""Rules as far as the file says, in parts that are evaluated each by itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from controlplane.netmap.policy.model import Policy, Rule, Target
from controlplane.netmap.policy.parse_rules import is_self
from controlplane.netmap.policy.selectors import DANGER_ALL, Addresses, Anything, Selector

# What the two ends of some grants of applications are to one another: the reached node has this capability
# towards those that may reach it. Source: tailscale tailcfg/tailcfg.go (PeerCapabilityTaildriveSharer …).
COMPANIONS = {
    "tailscale.com/cap/drive": "tailscale.com/cap/drive-sharer",
    "tailscale.com/cap/relay": "tailscale.com/cap/relay-target",
}


@dataclass(frozen=True)
class Plan:
    """A rule, or a part of one. ``app`` maps capabilities to their values (``None`` = none at all).

    ``is_own``: sources reach the devices of their own person only (``autogroup:self``). ``is_back``: the part
    that tells the rule's sources of what they reach, so that its targets are the senders.
    """

    sources: tuple[Selector, ...]
    targets: tuple[Target, ...]
    app: Mapping[str, list[Any] | None]
    via: tuple[str, ...] = ()
    postures: tuple[str, ...] = ()
    is_own: bool = False
    is_back: bool = False

    @cached_property
    def selectors(self) -> tuple[Selector, ...]:
        """Whatever names its senders and targets; own devices are those of its sources."""
        targets = () if self.is_own else tuple(target.selector for target in self.targets)
        return self.sources + targets

    @cached_property
    def has_wildcard(self) -> bool:
        """Whether ``*`` stands for senders, so that approved subnets are among them."""
        senders = [target.selector for target in self.targets] if self.is_back else self.sources
        return any(isinstance(selector, Anything) for selector in senders)

    @property
    def reaches_internet(self) -> bool:
        return any(
            isinstance(target.selector, Anything)
            or (isinstance(target.selector, Addresses) and target.selector.internet)
            for target in self.targets
        )

    def target_overlaps(self, first: int, last: int) -> bool:
        """Whether a subnet is among what is reached."""
        return any(_overlaps(target.selector, first, last) for target in self.targets)

    def source_overlaps(self, first: int, last: int) -> bool:
        """Whether packets from a subnet are let through."""
        return any(_overlaps(source, first, last) for source in self.sources)


def _overlaps(selector: Selector, first: int, last: int) -> bool:
    if isinstance(selector, Anything) or selector.text == DANGER_ALL:
        return True
    return isinstance(selector, Addresses) and selector.spans.overlaps(first, last)


def plans_of(policy: Policy) -> tuple[Plan, ...]:
    """All rules of a policy, in its order."""
    return tuple(plan for rule in policy.rules for plan in _parts(rule))


def _parts(rule: Rule) -> Iterator[Plan]:
    own = tuple(target for target in rule.targets if is_self(target.selector))
    others = tuple(target for target in rule.targets if not is_self(target.selector))
    app: dict[str, list[Any] | None] = {name: list(values) for name, values in rule.app.items()}
    back: dict[str, list[Any] | None] = {COMPANIONS[name]: None for name in app if name in COMPANIONS}
    for targets in (others, own):
        if targets:
            plan = Plan(rule.sources, targets, app, rule.via, rule.postures, is_own=targets is own)
            yield plan
            if back:
                yield replace(plan, app=back, is_back=True)
