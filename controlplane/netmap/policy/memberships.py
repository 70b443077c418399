"""In which rules a node takes part: the same for many nodes, and kept for those that do not change. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from controlplane.netmap.policy.compiled import Compiled
from controlplane.netmap.policy.world import bit_numbers

FEW = 16  # so many nodes are looked up by themselves; after that all are, together


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The rules (by number, in order) in which some nodes send, and in which they are reached."""

    sends: tuple[int, ...]
    receives: tuple[int, ...]


class Memberships:
    """The part of each node, by the number of its bit, under one sequence of rules."""

    def __init__(self, rules: Sequence[Compiled]) -> None:
        self._rules = rules
        self._parts: dict[int, Part] = {}
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], Part] = {}
        self._asked = 0

    def following(self, rules: Sequence[Compiled], changed: Iterable[int]) -> Memberships:
        """Under the same rules in the next world, in which the nodes with these bits changed."""
        result = Memberships(rules)
        result._parts, result._known = dict(self._parts), self._known
        result._asked = 0 if self._parts else self._asked
        for bit in changed:
            result._parts.pop(bit, None)
        return result

    def of(self, bit: int) -> Part:
        part = self._parts.get(bit)
        if part is None:
            self._asked += 1
            if self._asked == FEW:
                self._find_all()
                return self._parts.get(bit) or self._find(bit)
            part = self._find(bit)
        return part

    def _find(self, bit: int) -> Part:
        one, numbered = 1 << bit, list(enumerate(self._rules))
        return self._keep(
            bit,
            tuple(number for number, rule in numbered if rule.senders & one),
            tuple(number for number, rule in numbered if rule.receivers & one),
        )

    def _keep(self, bit: int, sends: tuple[int, ...], receives: tuple[int, ...]) -> Part:
        part = self._known.get((sends, receives))
        if part is None:
            part = self._known[sends, receives] = Part(sends, receives)
        self._parts[bit] = part
        return part

    def _find_all(self) -> None:
        sends = self._by_bit(lambda rule: rule.senders)
        receives = self._by_bit(lambda rule: rule.receivers)
        for bit in sends.keys() | receives.keys():
            self._keep(bit, sends.get(bit, ()), receives.get(bit, ()))

    def _by_bit(self, mask_of: Callable[[Compiled], int]) -> dict[int, tuple[int, ...]]:
        """Rules with the same mask are taken apart once, and nodes in the same masks share the numbers."""
        alike: dict[int, list[int]] = {}
        for number, rule in enumerate(self._rules):
            alike.setdefault(mask_of(rule), []).append(number)
        groups: dict[int, list[int]] = {}
        for group, mask in enumerate(alike):
            for bit in bit_numbers(mask):
                groups.setdefault(bit, []).append(group)
        numbers = list(alike.values())
        shared: dict[tuple[int, ...], tuple[int, ...]] = {}
        result: dict[int, tuple[int, ...]] = {}
        for bit, its_groups in groups.items():
            key = tuple(its_groups)
            found = shared.get(key)
            if found is None:
                found = shared[key] = tuple(sorted(n for group in its_groups for n in numbers[group]))
            result[bit] = found
        return result
