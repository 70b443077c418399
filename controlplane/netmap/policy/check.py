"""The one door for a policy text: parsed, held against the tailnet, its own tests run. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.tests import TestFailure
from controlplane.netmap.snapshot import TailnetSnapshot


@dataclass(frozen=True, slots=True)
class Checked:
    """A policy that was accepted (unless ``failures``), as it would act on the tailnet."""

    policy: Policy
    evaluation: Evaluation
    warnings: tuple[str, ...] = ()
    failures: tuple[TestFailure, ...] = ()


TESTS_FAILED = "test(s) failed"


def check(text: str, snapshot: TailnetSnapshot) -> Checked:
    """Parse and evaluate ``text`` for a tailnet; :class:`PolicyError` when it is refused.

    Failing tests are no exception: they come back in ``failures``, and whoever saves refuses with
    ``TESTS_FAILED``.
    """
    raise NotImplementedError
