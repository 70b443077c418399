"""The property tests of this folder once more, with many examples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = "5000"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_all_properties_with_many_examples() -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "not long", str(here)]
    environment = os.environ | {"TRENZA_TEST_EXAMPLES": EXAMPLES}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
