"""The tests of a policy, one by one, with what failed of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from controlplane.netmap.policy.errors import line_and_column
from controlplane.netmap.policy.model import AccessTest, Policy, SSHTest
from controlplane.netmap.policy.testbench import TestFailure

MAX_TESTS = 500  # of which a page tells
MAX_ERRORS = 50  # of one test


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a test says of some destinations or users."""

    word: str | Promise
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRow:
    """One test; it holds when it has no ``errors``."""

    source: str
    is_ssh: bool
    protocol: str
    lines: tuple[Expectation, ...]
    line: int
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """All tests of a policy and how many of them fail."""

    rows: tuple[TestRow, ...]
    failed: int
    left_out: int = 0


def outcome_of(policy: Policy, failures: Iterable[TestFailure]) -> Outcome:
    """Each test with the errors of its source; the errors of one source stand at its first test."""
    failures = list(failures)
    errors: dict[tuple[str, bool], list[str]] = {}
    for failure in failures:
        errors.setdefault((failure.source, failure.is_ssh), []).extend(failure.errors)
    tests: list[AccessTest | SSHTest] = [*policy.tests, *policy.ssh_tests]
    rows = [_row(policy.text, test, errors) for test in tests]
    rows.sort(key=lambda row: not row.errors)
    return Outcome(tuple(rows[:MAX_TESTS]), len(failures), max(0, len(rows) - MAX_TESTS))


def _row(text: str, test: AccessTest | SSHTest, errors: dict[tuple[str, bool], list[str]]) -> TestRow:
    is_ssh = isinstance(test, SSHTest)
    return TestRow(
        source=test.source,
        is_ssh=is_ssh,
        protocol="" if isinstance(test, SSHTest) else test.protocol,
        lines=tuple(line for line in _expectations(test) if line.names),
        line=line_and_column(text, test.offset)[0],
        errors=tuple(errors.pop((test.source, is_ssh), ())[:MAX_ERRORS]),
    )


def _expectations(test: AccessTest | SSHTest) -> list[Expectation]:
    if isinstance(test, SSHTest):
        return [
            Expectation(_("signs in to"), test.targets),
            Expectation(_("as"), test.accept),
            Expectation(_("after signing in again, as"), test.check),
            Expectation(_("never as"), test.deny),
        ]
    return [Expectation(_("reaches"), test.accept), Expectation(_("does not reach"), test.deny)]
