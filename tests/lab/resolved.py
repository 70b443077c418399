"""A systemd-resolved of its own for one host of the lab, with a message bus, in private folders."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.lab.net import Done, Namespace, run
from tests.lab.processes import wait_for
from tests.needs import program, resolved_root

ETC_FILES = ("passwd", "group", "nsswitch.conf", "os-release", "hosts", "ssl")
USER, NUMBER = "systemd-resolve", 996
STUB = "../run/systemd/resolve/stub-resolv.conf"
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="method_call"/>
    <allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""


def private_etc(namespace: Namespace) -> Path:
    """An /etc with resolved's user, whose resolv.conf leads to it."""
    etc = namespace.folder / "etc"
    etc.mkdir()
    for name in ETC_FILES:
        if Path("/etc", name).exists():
            run("cp", "-a", f"/etc/{name}", etc)
    for name, line in (
        ("passwd", f"{USER}:x:{NUMBER}:{NUMBER}::/:/bin/false"),
        ("group", f"{USER}:x:{NUMBER}:"),
    ):
        if f"{USER}:" not in (etc / name).read_text():
            with (etc / name).open("a") as file:
                file.write(f"{line}\n")
    (etc / "resolv.conf").symlink_to(STUB)
    return etc


class Resolved:
    """Running in ``namespace``, seen by whoever has the same ``private`` folders."""

    def __init__(self, namespace: Namespace, private: Mapping[str, Path]) -> None:
        self.namespace, self.private = namespace, private
        root = resolved_root()
        assert root is not None
        self._program = root / "lib/systemd/systemd-resolved"
        tools = namespace.folder / "tools"
        tools.mkdir()
        shutil.copy(root / "usr/bin/resolvectl", tools)
        self.path = f"{tools}{os.pathsep}{os.environ['PATH']}"

    def start(self) -> None:
        """Returns when it can be told something."""
        folder = self.private["/run"]
        for name in ("dbus", "systemd/resolve", "systemd/netif/links"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        owner = f"{USER}:{USER}" if _known() else f"{NUMBER}:{NUMBER}"
        run("chown", "-R", owner, folder / "systemd")
        config = self.namespace.folder / "bus.conf"
        config.write_text(BUS)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        bus = [program("dbus-daemon") or "dbus-daemon", f"--config-file={config}", "--nofork"]
        self.namespace.spawn(*bus, private=self.private, **quiet)
        wait_for("the message bus listens", (folder / "dbus" / "system_bus_socket").exists)
        self.namespace.spawn(self._program, private=self.private, **quiet)
        wait_for("systemd-resolved answers", lambda: self.ctl("dns", check=False).returncode == 0)

    def ctl(self, *arguments: str, check: bool = True) -> Done:
        """``resolvectl …``."""
        command = ["env", f"PATH={self.path}", "resolvectl", *arguments]
        return self.namespace.run(*command, private=self.private, check=check)


def _known() -> bool:
    return f"{USER}:" in Path("/etc/passwd").read_text()
