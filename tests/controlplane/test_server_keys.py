"""Hosts that share a database share the keys that clients know; one with others does not start."""

from __future__ import annotations

import dataclasses
import logging
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from controlplane.env import EnvironmentProblem, environment, read_or_make_secret
from controlplane.models import ServerKey
from controlplane.services import serverkeys

pytestmark = pytest.mark.django_db


@pytest.fixture
def foreign() -> None:
    serverkeys.check_fingerprints()
    ServerKey.objects.filter(name="noise").update(fingerprint="f" * 16)


def test_the_first_hosts_keys_are_noted_and_found_again() -> None:
    serverkeys.check_fingerprints()
    noted = dict(ServerKey.objects.values_list("name", "fingerprint"))
    assert noted.keys() == {"noise", "secret_key"}
    serverkeys.check_fingerprints()
    assert dict(ServerKey.objects.values_list("name", "fingerprint")) == noted


def test_processes_that_start_at_once_agree_on_a_secret(tmp_path: Path) -> None:
    path, ready = tmp_path / "data" / "key", threading.Barrier(8)

    def start(number: int) -> str:
        ready.wait()
        return read_or_make_secret(path, lambda: str(number))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(start, range(8)))) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("foreign")
def test_a_host_with_another_key_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled = dataclasses.replace(environment(), redis_url="redis://127.0.0.1")
    monkeypatch.setattr(serverkeys, "environment", lambda: scaled)
    with pytest.raises(EnvironmentProblem, match=r"noise\.key from the first host"):
        serverkeys.check_fingerprints()
    assert ServerKey.objects.get(name="noise").fingerprint == "f" * 16


@pytest.mark.usefixtures("foreign")
def test_a_single_server_says_so_and_starts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        serverkeys.check_fingerprints()
    assert "another noise" in caplog.text
    assert ServerKey.objects.get(name="noise").fingerprint != "f" * 16
