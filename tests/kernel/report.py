"""Pytest plugin: a failure is told when it happens, for the machine may break down before the end."""

from __future__ import annotations

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        print(f"\n{report.longreprtext}\n", flush=True)
