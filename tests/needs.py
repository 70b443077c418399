"""What tests need of the machine.

A test says so by a marker: ``root`` (root, namespaces, TUN), ``browser`` (Chromium), or
``needs("redis", …)`` by name. Where the machine lacks it the test is skipped with the reason, unless
``TRENZA_TEST_REQUIRE`` names it: then it fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

POSTGRES_HOMES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
GO_CLIENT = Path(__file__).resolve().parent / "controlplane/clients/go"
DOWNLOAD_SECONDS = 60
VERSION = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
BY_MARKER = {"root": ("root", "netns", "tun"), "browser": ("chromium",)}


def program(name: str) -> str | None:
    """The path of a program, also where it hides: sbin, PostgreSQL's own folders, and Go's."""
    hidden = ["/usr/sbin", "/sbin", *map(str, POSTGRES_HOMES), "/usr/local/go/bin"]
    folders = [os.environ.get("PATH", os.defpath), *hidden]
    return shutil.which(name, path=os.pathsep.join(folders))


def official(name: str) -> str | None:
    """An official binary: the one that ``TRENZA_<NAME>`` names, else the one on PATH."""
    return os.environ.get(f"TRENZA_{name.upper()}") or program(name)


def resolved_root() -> Path | None:
    """Where systemd-resolved is: installed, or unpacked in the folder that ``TRENZA_RESOLVED`` names."""
    roots = [Path(os.environ["TRENZA_RESOLVED"])] if "TRENZA_RESOLVED" in os.environ else [Path("/")]
    return next((root for root in roots if (root / "lib/systemd/systemd-resolved").exists()), None)


def _resolved() -> str:
    if resolved_root() is None:
        return "no systemd-resolved (unpack its package and set TRENZA_RESOLVED to the folder)"
    return _installed("dbus-daemon", "dbus-daemon")


def _installed(name: str, package: str) -> str:
    return "" if program(name) else f"{package} is not installed (make system)"


def _official(name: str) -> str:
    return "" if official(name) else f"no official {name} here (set TRENZA_{name.upper()} or PATH)"


def _namespaces() -> str:
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"no network namespaces: {done.stderr.strip()}"


def _kernel_wireguard() -> str:
    """Only trying tells: the module may be there without being loaded."""
    add = ["unshare", "--net", "ip", "link", "add", "probe", "type", "wireguard"]
    done = subprocess.run(add, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else "this kernel has no WireGuard (make test-kernel has one)"


def _policy_cases() -> str:
    folder = os.environ.get("TRENZA_POLICY_CASES", "")
    if not folder:
        return "no recorded policy cases here (set TRENZA_POLICY_CASES to their folder)"
    return "" if any(Path(folder).glob("*.jsonl")) else f"no policy cases in {folder} (TRENZA_POLICY_CASES)"


def _go_client() -> str:
    """Go, and the modules of its client, which are fetched where they are missing."""
    go = program("go")
    if go is None:
        return "no Go (https://go.dev/dl), which the client in Go is built with"
    try:
        done = subprocess.run(
            [go, "mod", "download"],
            cwd=GO_CLIENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=DOWNLOAD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"the modules of the client in Go did not come within {DOWNLOAD_SECONDS} s"
    return "" if done.returncode == 0 else f"no modules of the client in Go: {done.stderr.strip()[-300:]}"


def _system_python() -> str:
    """The distribution's Python, of this environment's version: what packages are built for."""
    done = subprocess.run(["/usr/bin/python3", "-c", VERSION], capture_output=True, text=True, check=False)
    if done.returncode:
        return "no /usr/bin/python3 with venv (apt install python3-venv)"
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    return "" if done.stdout.strip() == here else f"/usr/bin/python3 is {done.stdout.strip()}, not {here}"


CHECKS: dict[str, Callable[[], str]] = {
    "root": lambda: "" if os.geteuid() == 0 else "not root",
    "netns": _namespaces,
    "kernel-wireguard": _kernel_wireguard,
    "tun": lambda: "" if Path("/dev/net/tun").exists() else "/dev/net/tun is not there",
    "chromium": lambda: _installed("chromium", "Chromium"),
    "postgres": lambda: "" if os.environ.get("TRENZA_TEST_POSTGRES") else _installed("initdb", "PostgreSQL"),
    "redis": lambda: _installed("redis-server", "Redis"),
    "systemd-analyze": lambda: _installed("systemd-analyze", "systemd"),
    "system-python": _system_python,
    "dpkg-deb": lambda: _installed("dpkg-deb", "dpkg"),
    "bash": lambda: _installed("bash", "bash"),
    "zsh": lambda: _installed("zsh", "zsh"),
    "fish": lambda: _installed("fish", "fish"),
    "man": lambda: _installed("man", "man-db"),
    "faketime": lambda: _installed("faketime", "faketime"),
    "iperf3": lambda: _installed("iperf3", "iperf3"),
    "wireguard-go": lambda: _installed("wireguard-go", "wireguard-go"),
    "conntrack": lambda: _installed("conntrack", "conntrack"),
    "miniupnpd": lambda: _installed("miniupnpd", "miniupnpd-nftables"),
    "dropbear": lambda: _installed("dropbear", "dropbear-bin"),
    "ssh": lambda: _installed("ssh", "openssh-client"),
    "systemd-resolved": _resolved,
    "go-client": _go_client,
    "caddy": lambda: _installed("caddy", "Caddy"),
    "nginx": lambda: _installed("nginx", "nginx"),
    "tailscaled": lambda: _official("tailscaled"),
    "tailscale": lambda: _official("tailscale"),
    "derper": lambda: _official("derper"),
    "headscale": lambda: _official("headscale"),
    "policy-cases": _policy_cases,
}


@cache
def missing(name: str) -> str:
    """Why ``name`` is not to be had here; empty when it is."""
    return CHECKS[name]()


def need(*names: str) -> None:
    """Skip the running test when the machine lacks one of these, or fail when it is required."""
    required = {name.strip() for name in os.environ.get("TRENZA_TEST_REQUIRE", "").split(",")}
    for name in names:
        if reason := missing(name):
            if name in required:
                pytest.fail(f"{name} is required by TRENZA_TEST_REQUIRE: {reason}")
            pytest.skip(reason)


def names_of(item: pytest.Item) -> list[str]:
    """What a test's markers ask for."""
    names = [
        name for marker, needed in BY_MARKER.items() if item.get_closest_marker(marker) for name in needed
    ]
    return names + [name for marker in item.iter_markers("needs") for name in marker.args]
