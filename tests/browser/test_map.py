"""The map by hand: drawn, picked, filtered, live; and a relay that is added, switched off, removed."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from playwright.sync_api import Page, TimeoutError, expect

from tests.browser.conftest import Complaints, Place, Visit, live, mark, not_reloaded
from tests.browser.server import Device
from wire.paths import PeerPath, Reason

pytestmark = pytest.mark.browser

TRIES, CLICK_MS = 5, 5000
NET = {"PreferredDERP": 900, "DERPLatency": {"900-v4": 0.012}}
READERS: list[dict[str, bool]] = [
    {},
    {"phone": True, "dark": True},
    {"spanish": True},
    {"phone": True, "spanish": True},
]


@pytest.fixture(scope="module")
def pair(place: Place) -> tuple[Device, Device]:
    """Two connected devices."""
    box, web = (place.device(name, approved=True, online=True, NetInfo=NET) for name in ("box", "web"))
    return box, web


def path_to(place: Place, hostname: str, **facts: Any) -> PeerPath:
    return PeerPath(node_id=int(place.node(hostname)["id"]), **facts)


def drawn(page: Page, nodes: int, links: int) -> Page:
    """Wait until the picture has so many devices and links."""
    page.wait_for_selector(f'#map[data-drawn="{nodes} {links}"]')
    return page


def picked(page: Page) -> Any:
    return page.locator("#map-device .picked")


@pytest.mark.parametrize("reader", READERS)
def test_the_map_is_drawn_for_every_reader(
    visit: Visit, place: Place, pair: tuple[Device, Device], reader: dict[str, bool]
) -> None:
    page = live(visit("/map", place, **reader))
    page.wait_for_selector("#map[data-drawn^='2 ']")
    spanish = reader.get("spanish", False)
    expect(page.get_by_role("heading", name="Mapa" if spanish else "Map", exact=True)).to_be_visible()
    assert page.locator("#map canvas").count() == 3
    page.locator("#map").press("ArrowDown")
    expect(
        picked(page).get_by_role("heading", name="box").or_(picked(page).get_by_role("heading", name="web"))
    ).to_be_visible()
    page.keyboard.press("Escape")
    expect(picked(page)).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#view-table").click()
    expect(page.locator("#map-table")).to_contain_text("box")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_links_change_in_place_and_say_why(visit: Visit, place: Place, pair: tuple[Device, Device]) -> None:
    box, web = pair
    for device in pair:  # they answer no pings: the server may have let go of them by now
        device.close()
        device.listen()
    page, table = live(visit("/map", place)), live(visit("/map?view=table", place))
    for one in (page, table):
        mark(one)
    page.wait_for_selector("#map[data-drawn^='2 ']")
    box.tells_paths(path_to(place, "web", derp_region=900, reason=Reason.UDP_BLOCKED_HERE))
    drawn(page, 2, 1)
    expect(table.locator("#map-table tbody")).to_contain_text("Relayed")
    page.locator("#map").press("ArrowRight")
    page.keyboard.press("Enter")
    expect(picked(page)).to_contain_text("UDP is blocked on this device")
    expect(picked(page)).to_contain_text("≈ 24 ms")
    expect(page.locator("#map-device button[data-pick]")).to_be_focused()
    web.tells_paths(path_to(place, "box", endpoint="192.0.2.7:41641", latency_ms=7))
    expect(table.locator("#map-table tbody")).to_contain_text("192.0.2.7:41641")
    expect(picked(page)).to_contain_text("directly in one direction")
    picked(page).locator("a[href^='/devices/']").click()
    page.wait_for_url("**/devices/*")
    assert not_reloaded(table)


def test_filters_narrow_the_picture_and_stay_in_the_url(
    visit: Visit, place: Place, pair: tuple[Device, Device]
) -> None:
    page = visit("/map", place)
    page.wait_for_selector("#map[data-drawn^='2 ']")
    page.locator("#map-search").fill("nothing-like-this")
    drawn(page, 0, 0)
    expect(page.locator("#map-none")).to_be_visible()
    page.locator("#map-search").fill("")
    page.wait_for_selector("#map[data-drawn^='2 ']")
    page.locator("select[name=path]").select_option("idle")
    drawn(page, 0, 0)
    assert page.url.endswith("/map?path=idle")
    assert page.locator("#view-table").get_attribute("href") == "/map?path=idle&view=table"
    page.locator("#map-clear").click()
    page.wait_for_selector("#map[data-drawn^='2 ']")


def test_a_device_that_comes_moves_nobody(visit: Visit, place: Place, pair: tuple[Device, Device]) -> None:
    page = live(visit("/map", place))
    page.wait_for_selector("#map[data-drawn^='2 ']")
    mark(page)
    place.device("newcomer", approved=True)
    page.wait_for_selector("#map[data-drawn^='3 ']")
    assert not_reloaded(page)


def choose(page: Page, action: str) -> None:
    """Take something from the relay's menu; one that closes because the page scrolls is opened again."""
    for _ in range(TRIES):
        with contextlib.suppress(TimeoutError):
            page.locator("#relays [id^=open-relay-]").click(timeout=CLICK_MS)
            page.locator(f".menu:popover-open [href$='/{action}']").click(timeout=CLICK_MS)
            page.wait_for_selector("#sheet[open] h2", timeout=CLICK_MS)
            return
    raise AssertionError("the menu does not stay open")


@pytest.mark.parametrize("reader", READERS)
def test_a_relay_of_ones_own_is_added_switched_off_and_removed(
    visit: Visit, place: Place, complaints: Complaints, reader: dict[str, bool]
) -> None:
    page, other = live(visit("/relays", place, **reader)), live(visit("/relays", place))
    page.locator("#add-relay").click()
    page.fill("#sheet #id_name", "Madrid")
    page.fill("#sheet #id_host", "not a host")
    page.keyboard.press("Enter")
    expect(page.locator("#host-error")).to_be_visible()
    complaints.clear()  # the browser names every answer that is no success
    page.fill("#sheet #id_host", "relay.example.com")
    page.keyboard.press("Enter")
    expect(page.locator("#relay-install")).to_contain_text("TRENZA_RELAY_TOKEN=")
    page.locator("#sheet .sheet-foot a").click()
    for one in (page, other):
        expect(one.locator("#relays").get_by_text("Madrid", exact=True)).to_be_visible()
    for action in ("rename", "enabled", "remove"):
        choose(page, action)
        if action == "rename":
            page.fill("#sheet #id_name", "Lisboa")
        page.locator("#sheet button[type=submit]").click()
        expect(page.locator("#sheet")).not_to_have_attribute("open", "")
        if action == "rename":
            expect(other.locator("#relays").get_by_text("Lisboa", exact=True)).to_be_visible()
    for one in (page, other):
        expect(one.locator("#relays").get_by_text("Lisboa", exact=True)).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
