"""A namespace that passes for a whole Linux machine: its own name, settings, programs, state, and ``sudo``.

Everything else is the host's. What is typed there is run as written: a manual can be followed to the letter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.lab.net import LabError, Namespace
from tests.lab.node import URL
from tests.lab.processes import wait_for

TYPE_SECONDS = 300.0
OWN = {"/opt": "opt", "/run": "run", "/var/lib": "lib", "/usr/local/share": "share"}
COPIED = {"/etc": "etc", "/usr/local/bin": "bin"}
KEPT = ("PATH", "HOME", "LANG")
SUDO = '#!/bin/sh\nexec env "$@"\n'  # everybody is root here
TYPED = 'hostname "$0" && cd "$1" && exec sh -c "$2"'


class Typed:
    """A command that was typed and may still run; ``text`` is what it said until now."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def says(self, words: str) -> str:
        """Wait until it has said this; returns everything it said."""

        def said() -> str:
            if words in self.text:
                return self.text
            if self.process.poll():
                raise LabError(f"it ended:\n{self.text}")
            return ""

        return wait_for(f"it says {words!r}", said, seconds=TYPE_SECONDS)

    def link(self) -> str:
        """Wait for the address that a person must open."""
        self.says("/register/")
        found = wait_for("a whole address", lambda: URL.search(self.text))
        return found[0] if found else ""

    def ends_well(self) -> str:
        """Wait for its end; returns what it said."""
        if status := self.process.wait(TYPE_SECONDS):
            raise LabError(f"it ended with status {status}:\n{self.text}")
        return self.text


class Machine:
    """A machine called like its namespace; ``home`` is where its user's files are."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.name = namespace.short
        self.home = namespace.folder / "home"
        self.home.mkdir()
        root = namespace.folder / "root"
        self.private = {place: root / name for place, name in (OWN | COPIED).items()}
        for place in OWN:
            self.private[place].mkdir(parents=True)
        for place in COPIED:
            shutil.copytree(place, self.private[place], symlinks=True)
        sudo = self.private["/usr/local/bin"] / "sudo"
        sudo.unlink(missing_ok=True)
        sudo.write_text(SUDO)
        sudo.chmod(0o755)
        shutil.rmtree(self.private["/etc"] / "trenza", ignore_errors=True)  # the host's own, if it has any
        self._etc("resolv.conf").write_text("")
        self._etc("hosts").write_text("127.0.0.1 localhost\n")
        self._typed = 0

    def _etc(self, name: str) -> Path:
        path = self.private["/etc"] / name
        path.unlink(missing_ok=True)  # it may be a link to what is not here
        return path

    def knows(self, address: str, name: str) -> None:
        """Give a host a name here."""
        with (self.private["/etc"] / "hosts").open("a") as file:
            file.write(f"{address} {name}\n")

    def start(self, line: str) -> Typed:
        """Type a line; does not wait."""
        self._typed += 1
        log = self.namespace.folder / f"typed{self._typed}.log"
        inside = ["unshare", "--uts", "sh", "-c", TYPED, self.name, str(self.home), line]
        with log.open("wb") as output:
            process = self.namespace.spawn(
                *inside,
                private=self.private,
                env={name: os.environ[name] for name in KEPT if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Typed(process, log)

    def type(self, line: str) -> str:
        """Type a line and wait for its end; returns what it said."""
        return self.start(line).ends_well()
