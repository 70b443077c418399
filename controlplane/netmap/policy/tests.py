"""The tests inside a policy file, run against its evaluation. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.netmap.policy.evaluate import Evaluation


@dataclass(frozen=True, slots=True)
class TestFailure:
    """A source of ``tests`` or ``sshTests`` for which something is not as the file says it should be."""

    source: str
    errors: tuple[str, ...]
    is_ssh: bool = False


def run_tests(evaluation: Evaluation) -> list[TestFailure]:
    """The failing entries of ``tests``; none when all hold."""
    raise NotImplementedError
