"""Programs that run in a namespace of the lab, and waiting for what they do."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.lab.net import PATIENCE, LabError, Namespace

CHECKOUT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 15.0
POLL_SECONDS = 0.05
LOG_TAIL = 3000
T = TypeVar("T")


def wait_for(what: str, condition: Callable[[], T], *, seconds: float = 30.0) -> T:
    """The first true value of ``condition``; :class:`LabError` when there is none in time.

    A :class:`LabError` inside counts as "not yet"; the last one is told at the end.
    """
    deadline, last = time.monotonic() + seconds * PATIENCE, ""
    while True:
        try:
            if value := condition():
                return value
        except LabError as error:
            last = f" ({error})"
        if time.monotonic() > deadline:
            raise LabError(f"not within {seconds:.0f} s: {what}{last}")
        time.sleep(POLL_SECONDS)


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of Trenza (they would leak in), and with ``more``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TRENZA_", "DJANGO_", "DATABASE_URL", "REDIS_URL"))
    }
    return kept | {"PYTHONPATH": str(CHECKOUT)} | more


@dataclass(eq=False)
class Daemon:
    """One long-running program. Its output is appended to ``log``, also over restarts."""

    namespace: Namespace
    command: Sequence[str | Path]
    log: Path
    environment: Mapping[str, str] = field(default_factory=clean_environment)
    private: Mapping[str, Path] | None = None  # see Namespace.command
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; does not wait for anything."""
        with self.log.open("ab") as output:
            self.process = self.namespace.spawn(
                *self.command,
                private=self.private,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in a terminal is for the lab, which ends it in order
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        if self.process is None:
            raise LabError(f"{self.command[0]} was not started")
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program itself (not to what it started)."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self) -> int:
        """SIGTERM and wait; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL and wait."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end; :class:`LabError` when it takes longer."""
        assert self.process is not None
        try:
            return self.process.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.command} did not end within {seconds:.0f} s\n{self.tail()}") from None

    def tail(self) -> str:
        """The end of its log, for messages."""
        return self.log.read_text(errors="replace")[-LOG_TAIL:] if self.log.exists() else ""


def process_command(pid: int) -> str:
    """A process's command line, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
