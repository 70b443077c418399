"""What a browser calls itself, as people know it."""

from __future__ import annotations

# In this order: most browsers also name those that they descend from.
BROWSERS = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
)
SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iPadOS"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
PHONES = frozenset({"Android", "iOS", "iPadOS"})


def browser_of(user_agent: str) -> str:
    """The browser's name, or an empty text."""
    return next((name for mark, name in BROWSERS if mark in user_agent), "")


def system_of(user_agent: str) -> str:
    """The operating system's name, or an empty text."""
    return next((name for mark, name in SYSTEMS if mark in user_agent), "")
