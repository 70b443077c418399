"""The one door for a policy text: parsed, held against the tailnet, its own tests run. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.netmap.policy.approvers import undefined_tags
from controlplane.netmap.policy.domains import require_domain
from controlplane.netmap.policy.errors import PolicyError, located
from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.parse import parse_policy
from controlplane.netmap.policy.selectors import Domain, User
from controlplane.netmap.policy.ssh import check_domains
from controlplane.netmap.policy.sshtests import run_ssh_tests
from controlplane.netmap.policy.testbench import TestFailure
from controlplane.netmap.policy.tests import run_tests
from controlplane.netmap.snapshot import TailnetSnapshot

TESTS_FAILED = "test(s) failed"
MAX_WARNINGS = 50


@dataclass(frozen=True, slots=True)
class Checked:
    """A policy that was accepted (unless ``failures``), as it would act on the tailnet."""

    policy: Policy
    evaluation: Evaluation
    warnings: tuple[str, ...] = ()
    failures: tuple[TestFailure, ...] = ()


def check(text: str, snapshot: TailnetSnapshot) -> Checked:
    """Parse and evaluate ``text`` for a tailnet; :class:`PolicyError` when it is refused.

    Failing tests are no exception: they come back in ``failures``, and whoever saves refuses with
    ``TESTS_FAILED``. Warnings tell of what is allowed but hardly meant.
    """
    policy = parse_policy(text, {group for user in snapshot.users.values() for group in user.groups})
    try:
        check_domains(policy, snapshot.users)
        _check_rule_domains(policy, snapshot)
    except PolicyError as error:
        raise located(error, text) from None
    evaluation = Evaluation.of(policy, snapshot)
    failures = (*run_tests(evaluation.world), *run_ssh_tests(evaluation.world))
    warnings = [warning for warning, _ in zip(_warnings(policy, snapshot), range(MAX_WARNINGS), strict=False)]
    return Checked(policy, evaluation, tuple(warnings), failures)


def _check_rule_domains(policy: Policy, snapshot: TailnetSnapshot) -> None:
    """Refuse ``user:*@<domain>`` of a domain that nobody of the tailnet belongs to."""
    logins = [user.login_name for user in snapshot.users.values()]
    for rule in policy.rules:
        for selector in (*rule.sources, *(target.selector for target in rule.targets)):
            if isinstance(selector, Domain):
                require_domain(selector.domain, logins, selector.offset)


def _warnings(policy: Policy, snapshot: TailnetSnapshot) -> Iterator[str]:
    known = {user.login_name.lower() for user in snapshot.users.values()}
    for name, logins in policy.groups.items():
        for login in logins:
            if login not in known:
                yield f"{name}: {login} is not a user of this tailnet"
    for rule in policy.rules:
        for selector in (*rule.sources, *(target.selector for target in rule.targets)):
            if isinstance(selector, User) and selector.text not in known:
                yield f"{selector.text} is not a user of this tailnet"
    tags = {tag for node in snapshot.nodes.values() for tag in node.tags}
    for tag in undefined_tags(policy, tags):
        yield f"{tag} is on devices, but not in tagOwners"
