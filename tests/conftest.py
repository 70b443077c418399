"""Every test's markers say what it needs of the machine (:mod:`tests.needs`)."""

from __future__ import annotations

import pytest

from tests.needs import names_of, need


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    need(*names_of(item))
