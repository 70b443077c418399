"""A real server and Debian's Chromium for this folder's tests; a fresh tailnet for whoever asks for one."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    expect,
    sync_playwright,
)

from tests.browser import chromium
from tests.browser.server import Device, Server, running_server

ACTION_MS = 20_000
expect.set_options(timeout=ACTION_MS)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def driver() -> Iterator[Playwright]:
    """Playwright itself: one for the whole run, because each brings an event loop along."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def chrome(driver: Playwright) -> Iterator[Browser]:
    with contextlib.closing(chromium.launch(driver)) as running:
        yield running


class Place:
    """A tailnet of its own on the shared server, with its owner and a reusable key that approves nobody."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name, self.owner = server, name, f"owner@{name}.example"
        server.command("createtailnet", name, "--owner", self.owner, "--json")
        self.devices: list[Device] = []
        self._keys: dict[tuple[str, ...], str] = {}
        self.cookies: list[Any] = []

    def key(self, *options: str) -> str:
        if options not in self._keys:
            made = self.server.command("createauthkey", self.name, "--reusable", *options, "--json")
            self._keys[options] = str(made["key"])
        return self._keys[options]

    def machine(self, hostname: str, **hostinfo: Any) -> Device:
        """A machine that has not asked for anything yet."""
        self.devices.append(Device(self.server, hostname, **hostinfo))
        return self.devices[-1]

    def device(
        self, hostname: str, *, approved: bool = False, online: bool = False, **hostinfo: Any
    ) -> Device:
        """A machine that has joined by key; it waits for approval unless ``approved``."""
        device = self.machine(hostname, **hostinfo)
        device.register(auth_key=self.key(*(["--preapproved"] if approved else [])))
        if online:
            device.listen()
        return device

    def node(self, hostname: str) -> dict[str, Any]:
        """The device as ``listnodes`` has it."""
        found = self.server.command("listnodes", self.name, "--json")
        return next(dict(one) for one in found if one["hostname"] == hostname)

    def close(self) -> None:
        for device in self.devices:
            device.close()


_names = (f"net{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def place(server: Server) -> Iterator[Place]:
    made = Place(server, next(_names))
    yield made
    made.close()


class Complaints(list[str]):
    """What a page's console said that it should not have."""

    def watch(self, page: Page) -> None:
        def hear(said: ConsoleMessage) -> None:
            its_own_status = said.location["url"] == page.url and "the server responded" in said.text
            if said.type in ("error", "warning") and not its_own_status:
                self.append(said.text)

        page.on("console", hear)
        page.on("pageerror", lambda error: self.append(str(error)))


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Every test that opens a page ends with a silent console (or clears what it provoked)."""
    said = Complaints()
    yield said
    assert said == []


Visit = Callable[..., Page]


@pytest.fixture
def visit(chrome: Browser, server: Server, complaints: Complaints) -> Iterator[Visit]:
    """Opens a page: ``visit(path, place)`` signed in as the owner, ``visit(path)`` signed out."""
    contexts: list[BrowserContext] = []

    def open_page(path: str, place: Place | None = None, **reader: bool) -> Page:
        context = chrome.new_context(**chromium.page_options(**reader))
        context.set_default_timeout(ACTION_MS)
        contexts.append(context)
        page = context.new_page()
        complaints.watch(page)
        if place is not None and not place.cookies:  # a link works once
            context.request.get(server.sign_in_link(place.owner, "--tailnet", place.name))
            place.cookies = context.cookies()
        elif place is not None:
            context.add_cookies(place.cookies)
        page.goto(server.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()


def live(page: Page) -> Page:
    """Wait until the page's socket is open."""
    page.wait_for_selector("body[data-connection=on]")
    return page


def mark(page: Page) -> None:
    """Leave a mark that a reload would wipe out."""
    page.evaluate("window.mark = 1")


def not_reloaded(page: Page) -> bool:
    return bool(page.evaluate("window.mark === 1"))


def row(page: Page, hostname: str) -> Any:
    """A device's row."""
    return page.locator("#device-list tbody tr", has=page.get_by_role("link", name=hostname, exact=True))
