"""The property tests once more, with many examples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
QUICK = "not long and not root and not browser"


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("examples", "arguments"),
    [
        (5000, [str(HERE / "wire")]),
        (500, [f"--ignore={HERE / 'wire'}", str(HERE)]),
    ],
    ids=["wire", "the others"],
)
def test_all_properties_with_many_examples(examples: int, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", f"hypothesis and {QUICK}", *arguments]
    environment = os.environ | {"TRENZA_TEST_EXAMPLES": str(examples)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
