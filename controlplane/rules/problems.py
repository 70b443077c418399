"""What is wrong with a policy text, and where: as far as the text alone shows it, so while one types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controlplane.netmap.policy.errors import PolicyError, located
from controlplane.netmap.policy.hujson import HuJSONError
from controlplane.netmap.policy.parse import parse_policy


@dataclass(frozen=True, slots=True)
class Problem:
    """An error (the text is refused) or a warning. ``line`` and ``column`` count from 1; 0 = nowhere."""

    message: str
    line: int = 0
    column: int = 0
    severity: str = "error"

    def plain(self) -> dict[str, Any]:
        """As the editor is told."""
        return {
            "message": self.message,
            "line": self.line,
            "column": self.column,
            "severity": self.severity,
        }


def problem_of(error: PolicyError | HuJSONError, text: str) -> Problem:
    """An error as a page shows it."""
    if isinstance(error, HuJSONError):
        return Problem(error.message, error.line, error.column)
    line, column = located(error, text).at or (0, 0)
    return Problem(error.message, line, column)


def problems_of(text: str, parse: Callable[[str], Any] = parse_policy) -> list[Problem]:
    """The error for which the text would be refused, if it can be seen in the text alone."""
    try:
        parse(text)
    except (PolicyError, HuJSONError) as error:
        return [problem_of(error, text)]
    return []
