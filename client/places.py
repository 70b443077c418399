"""Where the daemon keeps its state and listens: the host's own places for root, XDG's for everybody else.

Source: the XDG base directory specification (XDG_STATE_HOME, XDG_RUNTIME_DIR).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SYSTEM_STATE = Path("/var/lib/trenza")
SYSTEM_SOCKET = Path("/run/trenza/trenzad.sock")
SOCKET = "trenzad.sock"
ROOT = 0


def default_state(environment: Mapping[str, str], uid: int) -> Path:
    if uid == ROOT:
        return SYSTEM_STATE
    home = environment.get("XDG_STATE_HOME", "")
    base = Path(home) if home.startswith("/") else _home(environment) / ".local" / "state"
    return base / "trenza"


def default_socket(environment: Mapping[str, str], uid: int) -> Path:
    """Where a daemon of this user listens; beside its state when the session has no folder for sockets."""
    if uid == ROOT:
        return SYSTEM_SOCKET
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return Path(runtime) / "trenza" / SOCKET
    return default_state(environment, uid) / SOCKET


def find_socket(environment: Mapping[str, str], uid: int) -> Path:
    """Which daemon a command of this user means: the user's own where one runs, else the host's."""
    own = default_socket(environment, uid)
    return own if own.is_socket() else SYSTEM_SOCKET


def _home(environment: Mapping[str, str]) -> Path:
    home = environment.get("HOME", "")
    return Path(home) if home.startswith("/") else Path.home()
