"""Where the tests of a policy run, those of access and those of SSH: what they share, and how much work they
may be, so that nobody's file holds up a server. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from controlplane.netmap.policy.selectors import Selector
from controlplane.netmap.policy.subjects import Subject, is_named
from controlplane.netmap.policy.world import World

MAX_STEPS = 300_000  # rules looked at for all tests of a kind: a second or two
MAX_ERRORS = 20  # told of one test


@dataclass(frozen=True, slots=True)
class TestFailure:
    """A source of ``tests`` or ``sshTests`` for which something is not as the file says it should be."""

    __test__ = False  # no test of pytest's

    source: str
    errors: tuple[str, ...]
    is_ssh: bool = False


class Steps:
    """Those that are left; raises ``ValueError``, whose text is for people, when they are used up."""

    def __init__(self) -> None:
        self.left = MAX_STEPS

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise ValueError(f"the tests need more than {MAX_STEPS} steps: make them fewer")


def weight_of_group(members: int) -> int:
    """What it costs to look for somebody in a group."""
    return 1 + members // 16


class FromSources(Protocol):
    """A rule of either kind."""

    @property
    def sources(self) -> tuple[Selector, ...]: ...


class OfSource(Protocol):
    """A test of either kind."""

    @property
    def source(self) -> str: ...


R = TypeVar("R", bound=FromSources)
T = TypeVar("T", bound=OfSource)


class Bench(Generic[R]):
    """What was found for one test counts for the next, and steps are counted."""

    def __init__(self, world: World, rules: Sequence[R]) -> None:
        self.world = world
        self.policy = world.policy
        self.rules = rules
        self.steps = Steps()
        self._of: dict[Subject, list[R]] = {}
        self._cost = sum(self.weight(rule.sources) for rule in rules)

    def weight(self, selectors: Iterable[Selector]) -> int:
        """What it costs to look for somebody in these."""
        return sum(weight_of_group(len(self.policy.groups.get(one.text, ()))) for one in selectors)

    def rules_of(self, source: Subject) -> list[R]:
        """The rules that name a source, as they are tried."""
        found = self._of.get(source)
        if found is None:
            self.steps.spend(self._cost)
            found = self._of[source] = [
                rule
                for rule in self.rules
                if any(is_named(source, selector, self.policy) for selector in rule.sources)
            ]
        return found

    def failures(
        self, tests: Iterable[T], errors: Callable[[T], Iterator[str]], *, is_ssh: bool = False
    ) -> list[TestFailure]:
        """The tests that do not hold; when the steps are used up, the rest is not looked at."""
        failures = []
        for test in tests:
            told = tuple(error for error, _ in zip(errors(test), range(MAX_ERRORS), strict=False))
            if told:
                failures.append(TestFailure(test.source, told, is_ssh))
            if self.steps.left < 0:
                break
        return failures
