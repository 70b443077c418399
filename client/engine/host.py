"""What the host must offer before a tunnel can be: capabilities, TUN, a free UDP port."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from client.errors import SetupError

CAP_NET_ADMIN, CAP_NET_RAW = 12, 13
TUN_DEVICE = Path("/dev/net/tun")
PROCESS_STATUS = Path("/proc/self/status")


def has_capabilities(status: str | None = None) -> bool:
    """Whether we have CAP_NET_ADMIN and CAP_NET_RAW; ``status`` is /proc/self/status's text."""
    text = PROCESS_STATUS.read_text() if status is None else status
    lines = [line for line in text.splitlines() if line.startswith("CapEff:")]
    effective = int(lines[0].split()[1], 16) if lines else 0
    return bool(effective >> CAP_NET_ADMIN & 1 and effective >> CAP_NET_RAW & 1)


def require_capabilities(status: str | None = None) -> None:
    """Raises ``SetupError`` without them."""
    if not has_capabilities(status):
        raise SetupError(
            "trenzad needs root (CAP_NET_ADMIN and CAP_NET_RAW) for its network interface; "
            "start it with sudo or through its systemd unit, or without an interface by --tun userspace"
        )


def require_tun(device: Path = TUN_DEVICE) -> None:
    """Raises ``SetupError`` when the TUN device is missing or closed to us."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError as error:
        raise SetupError(
            f"{device} is missing; run: modprobe tun (for a container: add --device {device})"
        ) from error
    except OSError as error:
        raise SetupError(
            f"{device} cannot be opened ({error.strerror}); allow trenzad to use it "
            f"(for a container: add --device {device} --cap-add NET_ADMIN)"
        ) from error


def require_free_port(port: int) -> None:
    """Raises ``SetupError`` when someone listens on this UDP port; 0 always is free."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            _bind(family, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise port_taken(port) from error


def _bind(family: socket.AddressFamily, port: int) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("", port))


def port_taken(port: int) -> SetupError:
    return SetupError(
        f"UDP port {port} is taken by another program; stop that, or start trenzad with another --port"
    )
