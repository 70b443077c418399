"""How many examples a property is tried with: some in each run, many in the long one.

``TRENZA_TEST_EXAMPLES`` says how many (``tests/test_long.py`` asks for a lot). A property of many inputs at
once asks for a multiple of it.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("TRENZA_TEST_EXAMPLES", "20"))


def examples(times: int = 1) -> int:
    """``times`` as many as a property gets that asks for nothing."""
    return times * EXAMPLES


def use_profile() -> None:
    """No deadline: the machine is shared, and time is no property of the code."""
    settings.register_profile(
        "trenza",
        deadline=None,
        max_examples=EXAMPLES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("trenza")
