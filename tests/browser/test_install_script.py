"""The script that the panel hands out, on a bare machine: it installs the client from the server and joins.

Server, browser and machines live in namespaces without a way out, so nothing can come from anywhere else.
"""

from __future__ import annotations

import contextlib
import json
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Playwright, expect

from tests.browser import chromium
from tests.browser.conftest import live, mark, not_reloaded, row
from tests.lab.net import Done, Lab, Namespace, run
from tests.lab.processes import clean_environment
from tests.lab.server import MANAGE, Server

pytestmark = [pytest.mark.browser, pytest.mark.root]

INSTALL_SECONDS = 240.0
ONLINE_MS = 30_000


class Machine:
    """A Linux machine without systemd; the script's folders are moved into its own."""

    def __init__(self, namespace: Namespace, prefix: Path) -> None:
        self.namespace = namespace
        self.folder = namespace.folder
        self.prefix = prefix
        self.state = self.folder / "state"
        self.private = {"/run": self.folder / "run"}
        self.private["/run"].mkdir()

    def install(self, script: Path) -> Done:
        """Run the downloaded script as root."""
        folders = {"PREFIX": self.prefix, "CONF": self.folder / "conf", "STATE": self.state}
        return self.namespace.run(
            "sh",
            script,
            private=self.private,
            check=False,
            environment=clean_environment(**{name: str(path) for name, path in folders.items()}),
            seconds=INSTALL_SECONDS,
        )

    def status(self) -> dict[str, Any]:
        """What the installed command line says."""
        command = [
            self.prefix / "bin" / "trenza",
            "--socket",
            self.state / "trenzad.sock",
            "status",
            "--json",
        ]
        return dict(json.loads(self.namespace.run(*command).stdout))

    def daemons(self) -> int:
        """How many trenzad run here."""
        found = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in self.namespace.pids()]
        return sum(b"bin/trenzad" in words for words in found)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def serving(lab: Lab) -> Iterator[Server]:
    server = Server(lab.host("server"))
    # Outside: only here is there a package index to fetch the client's dependencies from.
    run(sys.executable, MANAGE, "builddownloads", environment=server.environment, seconds=INSTALL_SECONDS)
    with ThreadPoolExecutor(
        1
    ) as thread:  # this one may have Playwright's loop running, and start() runs its own
        thread.submit(server.start).result()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def panel(driver: Playwright, serving: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The owner's browser, on the server's own machine."""
    starter = tmp_path_factory.mktemp("chromium") / "chromium"
    starter.write_text(
        f'#!/bin/sh\nexec ip netns exec {serving.namespace.name} {chromium.executable()} "$@"\n'
    )
    starter.chmod(0o755)
    with contextlib.closing(chromium.launch(driver, str(starter))) as running:
        page = running.new_context(**chromium.page_options()).new_page()
        page.goto(serving.sign_in_link())
        yield page


def _download(page: Page, url: str, folder: Path) -> Path:
    """Make a pre-approved key for one machine in the panel, and download it as a script."""
    page.goto(f"{url}/keys")
    page.locator("main").get_by_role("link", name="Create auth key").first.click()
    page.get_by_label("Pre-approved").check()
    page.get_by_role("button", name="Create key").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Shell script").click()
    target = folder / waiting.value.suggested_filename
    waiting.value.save_as(target)
    return target


def test_the_script_installs_from_the_server_and_joins(
    lab: Lab, serving: Server, panel: Page, tmp_path: Path
) -> None:
    script = _download(panel, serving.url, tmp_path)
    panel.goto(f"{serving.url}/devices")
    live(panel)
    mark(panel)
    machine = Machine(lab.host("laptop"), tmp_path / "prefix")

    done = machine.install(script)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "PyPI" not in said  # everything came from the server
    assert "does not survive a restart" in said  # no systemd here: it says so
    assert machine.status()["BackendState"] == "Running"
    for page in ("man/man1/trenza-up.1", "bash-completion/completions/trenza"):
        assert (machine.prefix / "share" / page).exists()
    settings = machine.folder / "conf" / "client.env"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    assert f"TRENZA_CONTROL_URL={serving.url}\n" in settings.read_text()
    (name, device), *others = serving.nodes().items()
    assert others == []
    expect(row(panel, name)).to_contain_text("Online", timeout=ONLINE_MS)
    assert not_reloaded(panel)

    again = machine.install(script)  # an update: same machine, same identity, one daemon
    assert again.returncode == 0, again.stdout + again.stderr
    assert "the newest version is installed" in again.stdout
    assert machine.daemons() == 1
    assert serving.nodes()[name]["nodeId"] == device["nodeId"]
    assert machine.status()["BackendState"] == "Running"

    late = Machine(lab.host("late"), tmp_path / "prefix")
    refused = late.install(script)  # the key was for one machine
    assert refused.returncode != 0
    assert "trenza: not joined" in refused.stderr
    assert list(serving.nodes()) == [name]
