"""The systemd units are as closed as systemd itself can measure, and keep what must outlive them."""

from __future__ import annotations

import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
# The greatest exposure, in tenths: `systemd-analyze security`.
CLIENT, SERVICE = 30, 15
LIMITS = {
    "trenzad": CLIENT,
    "trenza-server": SERVICE,
    "trenza-relay": SERVICE,
    "trenza-worker": SERVICE,
    "trenza-beat": SERVICE,
}


def test_every_unit_has_a_limit() -> None:
    assert {path.stem for path in UNITS.glob("*.service")} == set(LIMITS)


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize(("unit", "limit"), LIMITS.items())
def test_exposure_stays_under_its_limit(unit: str, limit: int) -> None:
    options = ["--offline=true", "--no-pager", f"--threshold={limit}"]
    done = subprocess.run(
        ["systemd-analyze", "security", *options, str(UNITS / f"{unit}.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("unit", LIMITS)
def test_systemd_understands_every_line(unit: str, tmp_path: Path) -> None:
    """``verify`` also wants the programs to be there, so they are replaced."""
    lines = (UNITS / f"{unit}.service").read_text().splitlines()
    text = "\n".join("ExecStart=/bin/true" if line.startswith("ExecStart=") else line for line in lines)
    copy = tmp_path / f"{unit}.service"
    copy.write_text("\n".join(line for line in text.splitlines() if not line.startswith("ExecStartPre=")))
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"{unit}.service" not in done.stderr, done.stderr


@pytest.mark.parametrize("unit", ["trenzad", "trenza-server"])
def test_what_must_outlive_the_daemon_is_not_killed_with_it(unit: str) -> None:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(UNITS / f"{unit}.service")
    assert parser["Service"]["KillMode"] == "process"
