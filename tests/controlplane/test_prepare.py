"""What stands between a checkout and a server that can start."""

from __future__ import annotations

import stat
from pathlib import Path

from controlplane.management.commands.prepare import make_database_private


def test_the_database_is_nobody_elses_to_read(tmp_path: Path) -> None:
    new, old = tmp_path / "new.sqlite3", tmp_path / "old.sqlite3"
    old.write_bytes(b"rows")
    old.chmod(0o644)
    for path in (new, old):
        make_database_private({"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)})
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert old.read_bytes() == b"rows"


def test_a_database_elsewhere_is_left_alone() -> None:
    make_database_private({"ENGINE": "django.db.backends.postgresql", "NAME": "trenza"})
