"""Debian's Chromium through Playwright, the same way for tests and pictures."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, Playwright, sync_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}


def executable() -> str | None:
    """Where the distribution's browser is; ``None`` = not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def launch(playwright: Playwright, program: str | None = None, *flags: str) -> Browser:
    """Start the distribution's browser, or another ``program`` that starts it."""
    return playwright.chromium.launch(executable_path=program or executable(), args=[*FLAGS, *flags])


@contextlib.contextmanager
def browser(*flags: str) -> Iterator[Browser]:
    """A running browser."""
    with sync_playwright() as playwright, contextlib.closing(launch(playwright, None, *flags)) as running:
        yield running


def page_options(*, phone: bool = False, dark: bool = False, spanish: bool = False) -> dict[str, Any]:
    """What ``Browser.new_context`` takes for one kind of reader."""
    return {
        "viewport": PHONE if phone else DESKTOP,
        "color_scheme": "dark" if dark else "light",
        "locale": "es-ES" if spanish else "en-GB",
        "device_scale_factor": 1,
        "reduced_motion": "reduce",
    }
