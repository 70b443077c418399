"""Posture attributes: what a device tells of itself, and what keys and values people may set. Pure.

Source: https://tailscale.com/kb/1288/device-posture, publicapi/device.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nodes.hostinfo import MAX_HOSTNAME, lowered
from nodes.versions import parse_version

CUSTOM = "custom:"
OWN = "node:"  # what devices tell of themselves
MAX_KEY = 50  # characters, with the prefix
KEY = re.compile(r"custom:[A-Za-z0-9_]{1,43}", re.ASCII)
MAX_TEXT_VALUE = 50
TEXT_VALUE = r"^[A-Za-z0-9_.]*$"
MAX_NUMBER = 2**53 - 1  # what every JSON reader takes exactly
MAX_ATTRIBUTES = 100  # of one device

Value = str | int | float | bool


def is_key(text: str) -> bool:
    """Whether people may set an attribute of this name."""
    return KEY.fullmatch(text) is not None


def is_value(value: Any) -> bool:
    """Whether an attribute may have this value."""
    if isinstance(value, str):
        return len(value) <= MAX_TEXT_VALUE and re.fullmatch(TEXT_VALUE[1:-1], value) is not None
    return isinstance(value, int | float) and abs(value) <= MAX_NUMBER


def kind_of(value: Value) -> str:
    """What type of value it is, in JSON's words."""
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def own_attributes(hostinfo: Mapping[str, Any]) -> dict[str, Value]:
    """What a device tells of itself; what it does not tell is left out."""
    told = lowered(hostinfo)
    version = parse_version(_text(told, "ipnversion"))
    found: dict[str, Value] = {
        "node:os": _text(told, "os").lower(),
        "node:osVersion": _text(told, "osversion"),
        "node:tsVersion": ".".join(map(str, version)) if version is not None else "",
        "node:tsReleaseTrack": _track(version),
    }
    found = {name: value for name, value in found.items() if value}
    found["node:tsAutoUpdate"] = told.get("allowsupdate") is True
    if isinstance(told.get("stateencrypted"), bool):
        found["node:tsStateEncrypted"] = told["stateencrypted"]
    return found


def told_anew(attributes: Mapping[str, Value], hostinfo: Mapping[str, Any]) -> dict[str, Value]:
    """Attributes of a device, with what it tells of itself now in place of what it told before."""
    kept = {name: value for name, value in attributes.items() if not name.startswith(OWN)}
    return kept | own_attributes(hostinfo)


def _track(version: tuple[int, int, int] | None) -> str:
    """Releases whose second number is even are stable."""
    if version is None:
        return ""
    return "unstable" if version[1] % 2 else "stable"


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name)
    return value[:MAX_HOSTNAME] if isinstance(value, str) else ""
