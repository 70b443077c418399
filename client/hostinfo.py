"""What this node says of its host. Source: tailscale hostinfo, tailcfg.Hostinfo."""

from __future__ import annotations

import platform
import socket
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from client.prefs import Prefs
from wire.control import Hostinfo, NetInfo, Service

OS_RELEASE = Path("/etc/os-release")
MAX_OS_RELEASE = 16 * 1024
SSH_FOLDER = Path("/etc/ssh")
SSH_KEYS = "ssh_host_*_key.pub"
MAX_SSH_KEYS = 8
MAX_SSH_KEY = 16 * 1024


@cache
def program_version() -> str:
    """The version of Trenza that runs."""
    try:
        return version("trenza")
    except PackageNotFoundError:  # from a checkout
        return "0.1.0-dev"


def own_hostname(prefs: Prefs) -> str:
    return prefs.hostname or socket.gethostname() or "localhost"


def own_hostinfo(
    prefs: Prefs,
    net_info: NetInfo | None,
    services: tuple[Service, ...] = (),
    *,
    userspace: bool = False,
) -> Hostinfo:
    return Hostinfo(
        hostname=own_hostname(prefs),
        os="linux",
        os_version=platform.release(),
        ipn_version=program_version(),
        distro=_distro(),
        routable_ips=prefs.advertise_routes,
        request_tags=prefs.advertise_tags,
        services=services,
        ssh_host_keys=ssh_host_keys(),
        shields_up=prefs.shields_up,
        net_info=net_info,
        raw={"App": "trenza", "GoArch": platform.machine(), "Userspace": userspace}
        | ({"ExitNodeID": prefs.exit_node_id} if prefs.exit_node_id else {}),
    )


def ssh_host_keys(folder: Path = SSH_FOLDER) -> tuple[str, ...]:
    """The public keys of this host's SSH server, for ``trenza ssh`` of others; without their comments."""
    keys = []
    for path in sorted(folder.glob(SSH_KEYS))[:MAX_SSH_KEYS]:
        try:
            with path.open() as file:
                words = file.read(MAX_SSH_KEY).split()
        except (OSError, UnicodeDecodeError):
            continue
        if len(words) >= 2 and all(word.isprintable() for word in words[:2]):
            keys.append(" ".join(words[:2]))
    return tuple(keys)


@cache
def _distro() -> str:
    try:
        with OS_RELEASE.open() as file:
            lines = file.read(MAX_OS_RELEASE).splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return next((line[3:].strip("\"'") for line in lines if line.startswith("ID=")), "")
