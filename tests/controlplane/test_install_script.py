"""The install script against a server that is not ready: run for real, up to where it would install."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from django.template.loader import render_to_string

from tests.receiver import Answer, Asked, Receiver, receiving

TOOLS = ("cat", "grep", "mktemp", "rm", "sh", "tail", "uname")
FETCHERS = ("curl", "wget", "python3")
PREPARING = "the server is preparing its client"


LOCK = "/download/client.lock"


@dataclass
class Downloads:
    """A server that answers the lock with ``statuses`` one after another, then with 200; and nothing else."""

    server: Receiver
    statuses: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def asked(self) -> int:
        return sum(one.path == LOCK for one in self.server.asked)

    def answer(self, asked: Asked) -> Answer:
        if asked.path != LOCK:
            return Answer(404)
        return Answer(self.statuses.pop(0) if self.statuses else 200)


@pytest.fixture
def downloads() -> Iterator[Downloads]:
    with receiving() as server:
        made = Downloads(server)
        server.answer = made.answer
        yield made


def install(folder: Path, url: str, fetcher: str = "curl") -> tuple[str, str]:
    """What the script says on each of its outputs before it fails; it has no tools but these, and no wait."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for tool in {*TOOLS, fetcher} - {"python3"}:
        (bin_folder / tool).symlink_to(shutil.which(tool) or pytest.skip(f"no {tool} here"))
    for name, text in {"id": "echo 0", "sleep": "", "python3": f'exec {sys.executable} "$@"'}.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin_folder / name).chmod(0o755)
    script = folder / "install.sh"
    script.write_text(render_to_string("download/install.sh", {"base_url": url, "trusted_host": "127.0.0.1"}))
    environment = {"PATH": str(bin_folder), "PREFIX": str(folder / "prefix")}
    done = subprocess.run(
        [bin_folder / "sh", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert not (folder / "prefix").exists()
    return done.stdout, done.stderr


@pytest.mark.parametrize("fetcher", FETCHERS)
def test_while_the_server_prepares_its_client_the_script_says_so_once_and_waits(
    downloads: Downloads, tmp_path: Path, fetcher: str
) -> None:
    downloads.statuses = [503] * 12  # longer than a server that does not answer is waited for
    said, complained = install(tmp_path, downloads.url, fetcher)
    assert downloads.asked == 13
    assert said == f"trenza: {PREPARING}, as it does at its first start; waiting\n"
    (line,) = complained.splitlines()  # it has the lock; there is nothing more to fetch here
    assert line.startswith(f"trenza: cannot download the service file from {downloads.url} (")
    assert "404" in line


def test_it_does_not_wait_for_ever(downloads: Downloads, tmp_path: Path) -> None:
    downloads.statuses = [503] * 1000
    said, complained = install(tmp_path, downloads.url)
    assert downloads.asked == 100
    assert said.count(PREPARING) == 1
    assert "is still preparing its client; its log says why" in complained


def test_a_server_that_does_not_answer_is_given_up_sooner_and_the_reason_is_said(tmp_path: Path) -> None:
    said, complained = install(tmp_path, "http://127.0.0.1:1")
    assert said == "trenza: waiting for http://127.0.0.1:1 to answer\n"
    (line,) = complained.splitlines()
    assert "is the server up and its address right?" in line
    assert "connect" in line
