"""A wall clock that can be set for some programs alone, by libfaketime; their steady clocks stay right.

Go programs do not take part (wireguard-go keeps the true time): what is tried is what Trenza does of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from glob import glob
from pathlib import Path

from tests.lab.net import LabError

LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib64/faketime/libfaketimeMT.so.1")
DAY = 24 * 3600


@dataclass(frozen=True)
class Clock:
    """``file`` holds the offset, which the programs read whenever they look at the time."""

    file: Path

    @classmethod
    def at(cls, folder: Path) -> Clock:
        clock = cls(folder / "clock")
        clock.set(0)
        return clock

    def set(self, seconds: int) -> None:
        """So far ahead of the true time (behind it when negative)."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to live by it."""
        library = next((path for pattern in LIBRARIES for path in glob(pattern)), None)
        if library is None:
            raise LabError("no libfaketime: make system installs it")
        return {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # waits of threads would hang
        }
