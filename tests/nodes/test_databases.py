"""What must hold on each database: one-off keys under load, and these tests on PostgreSQL, too.

Of the tests of people and nodes each run takes those that are about rows: locks, constraints, sorting and
searching, what is one transaction. Those of pages and of texts ask the same services and selectors again;
they run on PostgreSQL in the long tests, with all the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import need
from tests.nodes import postgres
from tests.nodes.race import HOLDERS

CHECKOUT = Path(__file__).resolve().parents[2]
KEYS = 4
MANY_KEYS = 200
INNER = "TRENZA_TEST_ON_POSTGRES"
SUITE_SECONDS = 900.0
ABOUT_ROWS = (
    "tests/accounts/test_credentials.py",
    "tests/accounts/test_invites.py",
    "tests/accounts/test_people.py",
    "tests/accounts/test_records.py",
    "tests/accounts/test_tenancy.py",
    "tests/nodes/test_addresses.py",
    "tests/nodes/test_api_devices.py",
    "tests/nodes/test_api_posture.py",
    "tests/nodes/test_bulk.py",
    "tests/nodes/test_changes.py",
    "tests/nodes/test_clones.py",
    "tests/nodes/test_device_list.py",
    "tests/nodes/test_lifecycle.py",
    "tests/nodes/test_names.py",
    "tests/nodes/test_register_request.py",
    "tests/nodes/test_registration.py",
    "tests/nodes/test_rotation.py",
    "tests/nodes/test_state.py",
)
EVERYTHING = (
    "--ignore=tests/nodes/test_databases.py",
    "--ignore=tests/nodes/test_commands.py",  # has a server on PostgreSQL of its own
    "tests/accounts",
    "tests/nodes",
)


def run(arguments: list[str], folder: Path, url: str | None) -> str:
    """Run Python in a process of its own on a database; its output."""
    environment = os.environ | {"TRENZA_DATA": str(folder / "data"), INNER: "1"}
    if url:
        environment["DATABASE_URL"] = url
    else:
        environment.pop("DATABASE_URL", None)
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    need("postgres")
    with postgres.server(tmp_path_factory.mktemp("server")) as url:
        yield url


def check_race(folder: Path, url: str | None, keys: int) -> None:
    told = json.loads(run(["-m", "tests.nodes.race", str(keys)], folder, url))
    assert told["outcomes"] == {"registered": keys, "refused": keys * (HOLDERS - 1)}
    assert told["nodes"] == keys
    assert told["distinct"] == [keys, keys, keys], "IPv4, IPv6 and names are given once"
    assert told["uses"] == [1] * keys
    assert told["login"] == {"pending": 1, "gone": HOLDERS - 1}
    assert told["link"] == {"system": 1, "gone": HOLDERS - 1}
    assert told["owners"] == 1


def test_64_holders_of_a_one_off_key_make_one_node_on_sqlite(tmp_path: Path) -> None:
    check_race(tmp_path, None, KEYS)


def test_64_holders_of_a_one_off_key_make_one_node_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    check_race(tmp_path, postgres.new_database(postgres_url, "race"), KEYS)


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_64_holders_of_200_keys_make_200_nodes(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    url = None
    if database == "postgres":
        url = postgres.new_database(request.getfixturevalue("postgres_url"), "race200")
    check_race(tmp_path, url, MANY_KEYS)


@pytest.mark.timeout(SUITE_SECONDS)
@pytest.mark.skipif(INNER in os.environ, reason="this is the run on PostgreSQL")
@pytest.mark.parametrize(
    "tests",
    [
        pytest.param(ABOUT_ROWS, id="about rows"),
        pytest.param(EVERYTHING, id="everything", marks=pytest.mark.long),
    ],
)
def test_accounts_and_nodes_pass_on_postgres(
    tmp_path: Path, postgres_url: str, tests: tuple[str, ...]
) -> None:
    url = postgres.new_database(postgres_url, "suite")
    # Made anew, and left at the end: threads of the event loop's executor still hold connections to it.
    database = ["--create-db", "--reuse-db"]
    run(["-m", "pytest", "-q", "-p", "no:cacheprovider", *database, *tests], tmp_path, url)
