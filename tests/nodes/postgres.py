"""A PostgreSQL of a test's own: the one that ``TRENZA_TEST_POSTGRES`` names, else a temporary local one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.needs import program

START_SECONDS = 30


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run a server in ``folder`` and give its URL; data is not made durable, it is thrown away."""
    if os.environ.get("TRENZA_TEST_POSTGRES"):
        yield os.environ["TRENZA_TEST_POSTGRES"]
        return
    data, port = folder / "pg", _free_port()
    data.mkdir()
    if os.geteuid() == 0:
        shutil.chown(data, "postgres")
        for parent in data.parents:
            if parent == Path(tempfile.gettempdir()):
                break
            parent.chmod(parent.stat().st_mode | 0o055)
    initdb = [*_as_postgres(), str(program("initdb")), "-D", str(data), "-A", "trust", "-U", "trenza"]
    subprocess.run(initdb, check=True, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": 200,
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    process = subprocess.Popen(
        [*_as_postgres(), str(program("postgres")), "-D", data, *options],
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"postgres://trenza@127.0.0.1:{port}/postgres"
    try:
        _wait_until_up(url)
        yield url
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _wait_until_up(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def new_database(url: str, name: str) -> str:
    """Make an empty database on the server of ``url``; gives its URL."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{url.rpartition('/')[0]}/{name}"
