"""The manual's walkthrough: what is followed is what is written, and it works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.walkthrough import PAGE, STEPS, read_steps
from tests.lab.processes import CHECKOUT, clean_environment

WHOLE_SECONDS = 1800.0


def test_the_page_has_the_steps_and_its_pictures() -> None:
    steps = read_steps(PAGE.read_text())
    assert [step.title for step in steps] == list(STEPS)
    for step in steps:
        for picture in step.pictures:
            assert (PAGE.parent / "screenshots" / picture).exists(), picture


@pytest.mark.browser
@pytest.mark.root
@pytest.mark.long
@pytest.mark.timeout(WHOLE_SECONDS)
def test_the_page_can_be_followed_to_the_letter(tmp_path: Path) -> None:
    """In a process of its own, because Playwright's loop may run in this one."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.browser.walkthrough", str(tmp_path)],
        cwd=CHECKOUT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=WHOLE_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = {picture for step in read_steps(PAGE.read_text()) for picture in step.pictures}
    assert {path.name for path in tmp_path.iterdir()} == wanted
