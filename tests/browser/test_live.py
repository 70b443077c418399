"""An open page follows what happens, over one WebSocket, without moving what somebody is looking at."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Complaints, Place, Visit, live, mark, not_reloaded, row
from tests.browser.server import Server

pytestmark = pytest.mark.browser


def test_a_page_has_one_socket_that_says_what_changed_and_no_more(visit: Visit, place: Place) -> None:
    page = live(visit("/devices", place))
    sockets: list[str] = []
    frames: list[dict[str, object]] = []

    def opened(socket: object) -> None:
        sockets.append(socket.url)  # type: ignore[attr-defined]
        socket.on("framereceived", lambda data: frames.append(json.loads(data)))  # type: ignore[attr-defined]

    page.on("websocket", opened)
    page.reload()
    live(page)
    place.device("first")
    expect(row(page, "first")).to_be_visible()
    assert len(sockets) == 1
    assert re.search(r"/ws/panel/\d+$", sockets[0])
    told = [frame for frame in frames if frame["type"] not in ("hello", "ping")]
    assert told
    assert all(set(frame) == {"type", "id", "version"} for frame in told)


def test_what_another_process_changes_reaches_every_page(server: Server, visit: Visit, place: Place) -> None:
    place.device("by-command")
    node = place.node("by-command")
    devices = live(visit("/devices", place))
    detail = live(visit(f"/devices/{node['nodeId']}", place))
    keys = live(visit("/keys", place))
    for page in (devices, detail, keys):
        mark(page)
    server.command("approvenode", place.name, "by-command")
    server.command("createauthkey", place.name, "--tag", "tag:new")
    expect(row(devices, "by-command")).to_contain_text("Offline")
    expect(detail.locator("#device .page-head")).to_contain_text("Offline")
    expect(keys.locator("#key-list")).to_contain_text("tag:new")
    for page in (devices, detail, keys):
        assert not_reloaded(page)
        expect(page.locator("aside")).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_be_visible()


def test_rows_never_move_under_the_pointer(visit: Visit, place: Place) -> None:
    place.device("b-steady", approved=True)
    page = live(visit("/devices?sort=name", place))
    steady = row(page, "b-steady")
    steady.hover()
    before = steady.bounding_box()
    place.device("a-newcomer")
    expect(page.locator(".new-bar")).to_be_visible()
    expect(page.locator("#device-tabs")).to_contain_text("Needs approval")
    assert steady.bounding_box()["y"] - before["y"] == page.locator(".new-bar").bounding_box()["height"]
    assert row(page, "a-newcomer").count() == 0
    page.get_by_role("button", name="Show changes").click()
    expect(row(page, "a-newcomer")).to_be_visible()
    expect(page.locator(".new-bar")).to_be_hidden()


def test_an_open_menu_stays_open(visit: Visit, place: Place) -> None:
    device = place.device("menu-holder", approved=True)
    page = live(visit("/devices", place))
    row(page, "menu-holder").get_by_role("button", name="Actions for menu-holder").click()
    menu = page.locator(".menu:popover-open")
    expect(menu).to_be_visible()
    device.listen()
    expect(page.locator("#device-tabs")).to_contain_text("Online1")
    expect(menu).to_be_visible()
    page.keyboard.press("Escape")
    expect(row(page, "menu-holder")).to_contain_text("Online")


def test_a_device_deleted_elsewhere_disappears(visit: Visit, place: Place) -> None:
    place.device("doomed", approved=True)
    node = place.node("doomed")
    watching = live(visit("/devices", place))
    on_its_page = live(visit(f"/devices/{node['nodeId']}", place))
    acting = live(visit("/devices", place))
    row(acting, "doomed").get_by_role("button", name="Actions for doomed").click()
    acting.get_by_role("link", name="Delete…").click()
    dialog = acting.get_by_role("dialog", name="Delete doomed?")
    expect(dialog).to_contain_text("This cannot be undone")
    dialog.get_by_role("button", name="Delete").click()
    expect(row(acting, "doomed")).to_have_count(0)
    expect(row(watching, "doomed")).to_have_count(0)
    expect(on_its_page).to_have_url(re.compile("/devices$"))


def _lose(page: Page, server: Server) -> None:
    server.stop()
    expect(page.locator("#reconnecting")).to_be_visible()
    expect(page.locator("#reconnecting")).to_contain_text("Reconnecting")


def test_a_lost_connection_is_shown_and_made_good(
    server: Server, visit: Visit, place: Place, complaints: Complaints
) -> None:
    place.device("survivor")
    page = live(visit("/devices", place))
    mark(page)
    _lose(page, server)
    server.command("approvenode", place.name, "survivor")
    server.start()
    expect(page.locator("#reconnecting")).to_be_hidden(timeout=30_000)
    expect(row(page, "survivor")).to_contain_text("Offline")
    assert not_reloaded(page)
    assert all("WebSocket" in said or "Failed to load" in said or "ERR_" in said for said in complaints)
    complaints.clear()


def test_a_page_of_another_tailnet_says_so(
    server: Server, visit: Visit, place: Place, complaints: Complaints
) -> None:
    page = visit("/keys")
    page.goto(server.sign_in_link(place.owner, "--tailnet", place.name))
    page.goto(f"{server.url}/keys")
    live(page)
    server.command("createtailnet", f"{place.name}-second", "--owner", place.owner)
    other = page.context.new_page()
    other.goto(server.sign_in_link(place.owner, "--tailnet", f"{place.name}-second"))
    page.locator("main").get_by_role("link", name="Create auth key").first.click()
    expect(page.locator("#other-tailnet")).to_be_visible()
    page.get_by_role("button", name="Reload").click()
    expect(page.locator("#tailnet-menu ~ *, .tailnet-name").first).to_contain_text(f"{place.name}-second")
    assert all("409" in said for said in complaints)
    complaints.clear()
