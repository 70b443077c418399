"""One file with everything a server needs to live again: the database, and the keys in DATA.

The database is copied by its own means while the server runs (SQLite's online backup, ``pg_dump``). Without
the Noise key every client would be stranded, so the file holds secrets: it is written 0600.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connection
from django.db.models import F

from accounts.errors import Conflict, Invalid
from accounts.models import Tailnet

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "database"
KEY_FOLDER = "data/"
KEY_FILES = (
    "secret_key",
    "noise.key",
    "derp.key",
    "relay.crt",
    "relay.pem",
    "relay.token",
    "relay.ports",
    "relay.keys",
)
MAX_KEY_BYTES = 16 * 1024 * 1024
PG_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup file holds."""

    engine: str
    created: str
    keys: tuple[str, ...]


def _engine() -> str:
    return str(connection.vendor)


def _postgres_environment() -> dict[str, str]:
    """The connection for PostgreSQL's programs: in the environment, since arguments are for all to see."""
    settings = connection.settings_dict
    named = {
        "HOST": "PGHOST",
        "PORT": "PGPORT",
        "USER": "PGUSER",
        "PASSWORD": "PGPASSWORD",
        "NAME": "PGDATABASE",
    }
    given = {variable: str(settings[name]) for name, variable in named.items() if settings.get(name)}
    return dict(os.environ) | given


def _run_postgres(arguments: list[str]) -> None:
    try:
        done = subprocess.run(
            arguments,
            env=_postgres_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PG_SECONDS,
        )
    except FileNotFoundError as error:
        raise Conflict(
            f"{arguments[0]} is not installed; it comes with PostgreSQL's client programs"
        ) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it gave no reason"]
        raise Conflict(f"{arguments[0]} failed: {lines[-1]}")


def _dump(target: Path) -> None:
    if _engine() == "postgresql":
        _run_postgres(["pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={target}"])
        return
    connection.ensure_connection()
    with closing(sqlite3.connect(target)) as copy:
        connection.connection.backup(copy)


def _load(source: Path) -> None:
    if _engine() == "postgresql":
        connection.close()
        flags = ["--clean", "--if-exists", "--single-transaction", "--no-owner", "--no-privileges"]
        name = connection.settings_dict["NAME"]
        _run_postgres(["pg_restore", *flags, f"--dbname={name}", str(source)])
        return
    connection.ensure_connection()
    try:
        with closing(sqlite3.connect(source)) as copy:
            if copy.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise Invalid("the database in this backup is damaged")
            copy.backup(connection.connection)
    except sqlite3.DatabaseError as error:
        raise Invalid(f"the database in this backup cannot be restored: {error}") from error


@contextmanager
def _private_file(path: Path) -> Iterator[Path]:
    """A neighbour of ``path``, 0600, that takes its place at the end, or goes when something fails."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    archive.addfile(member, io.BytesIO(content))


def write_backup(*, file: Path, data: Path) -> Backup:
    """Write a backup of the database and of the keys in ``data``."""
    keys = tuple(name for name in KEY_FILES if (data / name).is_file())
    backup = Backup(_engine(), datetime.now(UTC).isoformat(timespec="seconds"), keys)
    manifest = {"format": FORMAT, "engine": backup.engine, "created": backup.created, "keys": list(keys)}
    try:
        with tempfile.TemporaryDirectory() as folder, _private_file(file) as target:
            database = Path(folder) / DATABASE
            _dump(database)
            with tarfile.open(target, "w:gz") as archive:
                _add_bytes(archive, MANIFEST, json.dumps(manifest).encode())
                archive.add(database, DATABASE)
                for name in keys:
                    _add_bytes(archive, KEY_FOLDER + name, (data / name).read_bytes())
    except OSError as error:
        raise Conflict(f"cannot write {file}: {error.strerror or error}") from error
    return backup


def _read_manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    try:
        member = archive.extractfile(MANIFEST)
        content = json.loads(member.read(MAX_KEY_BYTES)) if member is not None else None
    except (KeyError, ValueError) as error:
        raise Invalid("this file is no backup of Trenza") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise Invalid("this backup was written by another version; restore it with that one")
    return content


def restore_backup(*, file: Path, data: Path) -> tuple[Backup, bool]:
    """Put the database and the keys of a backup in place; also whether a key differs, so a restart is needed.

    The schema is migrated to this version's, and every tailnet's version moves on, so that running servers
    and clients see that everything may have changed.
    """
    try:
        with tarfile.open(file, "r:gz") as archive, tempfile.TemporaryDirectory() as folder:
            manifest = _read_manifest(archive)
            if manifest.get("engine") != _engine():
                raise Invalid(f"this backup is of {manifest.get('engine')}, this server uses {_engine()}")
            database = Path(folder) / DATABASE
            keys = _read_keys(archive, manifest)
            _extract_database(archive, database)
            versions = _versions()
            _load(database)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise Invalid(f"cannot read {file}: {error}") from error
    call_command("migrate", interactive=False, verbosity=0)
    _move_versions_on(versions)
    changed = [_write_key(data / name, content) for name, content in keys.items()]
    return Backup(_engine(), str(manifest.get("created", "")), tuple(keys)), any(changed)


def _read_keys(archive: tarfile.TarFile, manifest: dict[str, Any]) -> dict[str, bytes]:
    """The key files by name; only names that we know are read, so a crafted archive writes nowhere else."""
    keys = {}
    for name in KEY_FILES:
        if name in manifest.get("keys", []):
            member = archive.extractfile(KEY_FOLDER + name)
            if member is None:
                raise Invalid(f"the backup lacks {name}")
            keys[name] = member.read(MAX_KEY_BYTES)
    return keys


def _extract_database(archive: tarfile.TarFile, target: Path) -> None:
    member = archive.extractfile(DATABASE)
    if member is None:
        raise Invalid("the backup lacks its database")
    with target.open("wb") as copy:
        while block := member.read(1024 * 1024):
            copy.write(block)


def _versions() -> dict[int, int]:
    """Every tailnet's version before the restore; none where there is no schema yet."""
    if Tailnet._meta.db_table not in connection.introspection.table_names():
        return {}
    return dict(Tailnet.objects.values_list("pk", "netmap_version"))


def _move_versions_on(before: dict[int, int]) -> None:
    """Make every version higher than any that was handed out: a lower one would look like nothing new."""
    highest = max(before.values(), default=0)
    Tailnet.objects.filter(netmap_version__lt=highest).update(netmap_version=highest)
    Tailnet.objects.update(netmap_version=F("netmap_version") + 1)


def _write_key(path: Path, content: bytes) -> bool:
    """Write one key file atomically (0600); returns whether it differs from the one before."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _private_file(path) as temporary:
        temporary.write_bytes(content)
    return True
