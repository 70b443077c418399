"""The way in, what machines download, and the refusals' own pages."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from django.test import Client

from accounts.models import Tailnet, User
from controlplane import views
from controlplane.env import environment
from controlplane.services import downloads
from tests.accounts import factories
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


# --- the way in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/", "/sign-in?next=%2F"),
        ("/admin", "/approvals"),
        ("/admin/machines", "/approvals"),
        ("/admin/machines/100.64.0.1", "/approvals"),
    ],
)
def test_addresses_that_lead_on(client: Client, path: str, to: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer["Location"]) == (302, to)


# --- downloads -------------------------------------------------------------------------------------------


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A download folder as ``builddownloads`` leaves it."""
    folder = downloads.folder(tmp_path)
    (folder / downloads.WHEELS).mkdir(parents=True)
    (folder / downloads.WHEELS / "trenza-0.1-py3-none-any.whl").write_bytes(b"wheel")
    (folder / "client.lock").write_text("trenza==0.1\n")
    (folder / "trenzad.service").write_text("[Unit]\n")
    (folder / downloads.STAMP).write_text("x")
    here = replace(environment(), data=tmp_path)
    monkeypatch.setattr(views, "environment", lambda: here)
    return folder


def test_machines_download_without_signing_in(client: Client, built: Path) -> None:
    assert client.get("/download/wheels/trenza-0.1-py3-none-any.whl").content == b"wheel"
    assert client.get("/download/client.lock")["Content-Type"] == "text/plain; charset=utf-8"
    assert client.get("/download/trenzad.service").status_code == 200
    index = client.get("/download/wheels/")
    assert '<a href="trenza-0.1-py3-none-any.whl">' in index.content.decode()


@pytest.mark.parametrize(
    "path",
    [
        "built",
        "wheels/none.whl",
        "nothing",
        "..%2fsecret_key",
        ".lock",
        "wheels/..%2f..%2f..%2fsecret_key",
        "%00",
    ],
)
def test_nothing_else_is_served(client: Client, built: Path, path: str) -> None:
    (built.parent / "secret_key").write_text("hush")
    answer = client.get(f"/download/{path}")
    assert answer.status_code == 404
    assert b"hush" not in answer.content


def test_a_link_out_of_the_folder_is_not_followed(client: Client, built: Path) -> None:
    (built.parent / "secret_key").write_text("hush")
    (built / "leak").symlink_to(built.parent / "secret_key")
    assert client.get("/download/leak").status_code == 404


def test_while_the_client_is_being_built_machines_are_told_to_come_back(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(environment(), data=tmp_path)
    monkeypatch.setattr(views, "environment", lambda: here)
    for path in ("/download/wheels/", "/download/client.lock"):
        answer = client.get(path)
        assert (answer.status_code, answer["Retry-After"]) == (503, str(views.RETRY_SECONDS))


def test_the_install_script_is_sound_and_names_this_server(client: Client) -> None:
    text = client.get("/download/install.sh").content.decode()
    assert text.startswith("#!/bin/sh\n")
    assert f"URL='{environment().url}'" in text
    checked = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
