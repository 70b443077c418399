"""What a policy text would change if it were saved: who gains, who loses, and what its own tests say."""

from __future__ import annotations

from dataclasses import dataclass, replace

from accounts.errors import Invalid
from accounts.models import Tailnet
from controlplane.netmap.policy.check import Checked
from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.gains import Comparison, compare
from controlplane.netmap.policy.hujson import EXTRA, MAX_POLICY_BYTES
from controlplane.netmap.policy.matches import Match, read_place, rules_of_person, rules_of_place
from controlplane.netmap.policy.parse import parse_policy
from controlplane.netmap.policy.testbench import TestFailure
from controlplane.netmap.policy.tests import run_tests
from controlplane.netmap.policy.world import World
from controlplane.netmap.snapshot import TailnetSnapshot
from controlplane.services.evaluations import evaluated
from controlplane.services.policy import PolicyRefused, parse_for, snapshot_of

USER, IPPORT = "user", "ipport"
AROUND = '{"tests":\n'  # a line of its own, so that places within the tests stay right but for their line


@dataclass(frozen=True, slots=True)
class Preview:
    """A text that could be saved (unless tests fail), and what it would change."""

    snapshot: TailnetSnapshot
    checked: Checked
    comparison: Comparison


def preview_policy(*, tailnet: Tailnet, text: str) -> Preview:
    """Compare a text with the policy in force; raises :class:`PolicyRefused`. Needs no scope."""
    place = evaluated(tailnet)
    snapshot = place.snapshot
    checked = parse_for(snapshot, text)
    if text == snapshot.policy.text:
        return Preview(snapshot, checked, Comparison(()))
    return Preview(snapshot, checked, compare(place.evaluation, checked.evaluation, snapshot.nodes))


def preview_rules(*, tailnet: Tailnet, text: str, kind: str, what: str) -> list[Match]:
    """The rules of a text that concern a person (their login) or a place (``10.0.0.1:80``).

    An empty text stands for the policy in force.
    """
    snapshot = snapshot_of(tailnet)
    world = parse_for(snapshot, text or snapshot.policy.text).evaluation.world
    if kind == USER:
        return rules_of_person(world, what)
    try:
        return rules_of_place(world, *read_place(what))
    except ValueError as error:
        raise Invalid(f"{what[:80]!r} is no address with a port: write it like 10.0.0.1:80") from error


def is_list(text: str) -> bool:
    """Whether a text is a list, and so tests, and no policy."""
    blank = EXTRA.match(text)
    return text.startswith("[", blank.end() if blank else 0)


def run_against_saved(*, tailnet: Tailnet, tests: str) -> list[TestFailure]:
    """Run these tests (a HuJSON list) against the policy in force; returns those that fail."""
    if len(tests) > MAX_POLICY_BYTES:
        raise PolicyRefused(f"tests have at most {MAX_POLICY_BYTES} bytes")
    snapshot = snapshot_of(tailnet)
    try:
        parsed = parse_policy(f"{AROUND}{tests}\n}}")
    except PolicyError as error:
        at = (error.at[0] - 1, error.at[1]) if error.at is not None else None
        raise PolicyRefused(error.message, at=at, syntax=error.offset is None) from error
    policy = replace(snapshot.policy, tests=parsed.tests, ssh_tests=())
    return run_tests(World.of(policy, snapshot.nodes, snapshot.users))
