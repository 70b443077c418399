"""Property tests run without a deadline: the machine is shared, and time is no property of these modules."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "shared-machine",
    deadline=None,
    max_examples=int(os.environ.get("TRENZA_TEST_EXAMPLES", "50")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("shared-machine")
