"""Why an ordinary user may not have a network namespace here, and which switch allows it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from client.errors import SetupError

SYSCTL = Path("/proc/sys")
# The first whose value is this forbids; what to do about it.
SWITCHES = (
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "the kernel forbids user namespaces; allow them with: sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        "user/max_user_namespaces",
        "0",
        "the kernel forbids user namespaces; allow them with: sysctl -w user.max_user_namespaces=10000",
    ),
    (
        "user/max_net_namespaces",
        "0",
        "the kernel forbids network namespaces; allow them with: sysctl -w user.max_net_namespaces=10000",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor forbids user namespaces; allow them with: "
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (or give trenzad a profile with userns)",
    ),
)
REFUSED = frozenset({errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS})


def read_sysctl(name: str) -> str:
    """Its value; empty when this kernel has none of the name."""
    try:
        return (SYSCTL / name).read_text().strip()
    except OSError:
        return ""


def forbidden(step: str, code: int, *, read: Callable[[str], str] = read_sysctl) -> SetupError:
    """What to tell of a ``step`` that the kernel refused with ``code``."""
    if code in REFUSED:
        for name, value, words in SWITCHES:
            if read(name) == value:
                return SetupError(f"trenzad cannot run without root here: {words}")
        return SetupError(
            f"trenzad cannot run without root here: the {step} of a user namespace is refused "
            f"({errno.errorcode.get(code, code)}), by a container's seccomp profile or a security module; "
            "allow unshare and mount there, or run trenzad as root"
        )
    return SetupError(
        f"trenzad cannot run without root here: the {step} of a user namespace failed "
        f"({errno.errorcode.get(code, code)}); run trenzad as root"
    )
