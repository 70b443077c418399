"""The list of devices with real hands: many at once, by keys, found from anywhere, light on the network."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from nodes.listing import PAGE_SIZE
from tests.browser.conftest import Place, Visit, live, mark, not_reloaded, row
from tests.browser.server import Server

pytestmark = pytest.mark.browser

FIRST_BYTES = 400_000
LATER_BYTES = 30_000
# What crossed the network for this page and all that it loads; what came from the cache is nothing.
CROSSED = """
() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .reduce((sum, one) => sum + one.transferSize, 0)
"""


@pytest.fixture(scope="module")
def crowd(place: Place) -> Place:
    """More devices than a page shows; ``c-000`` to ``c-059``, every tenth waits for approval."""
    for number in range(PAGE_SIZE + 10):
        place.device(f"c-{number:03}", approved=number % 10 > 0).close()
    return place


def box(page: Page, hostname: str) -> Locator:
    return row(page, hostname).get_by_role("checkbox", name=f"Choose {hostname}")


def chosen(page: Page) -> Locator:
    return page.locator("#device-list .pick-one:checked")


def bulk(page: Page, word: str) -> Locator:
    """The dialog of a bulk action."""
    page.locator("#bulk").get_by_role("button", name=word, exact=True).click()
    return page.locator("#sheet[open]")


def test_ranges_keys_and_all_that_match(visit: Visit, crowd: Place) -> None:
    page = live(visit("/devices?sort=name", crowd))
    expect(page.locator("#bulk")).to_be_hidden()
    box(page, "c-001").click()
    box(page, "c-004").click(modifiers=["Shift"])
    expect(page.locator("#bulk")).to_contain_text("4 devices selected")
    page.keyboard.press("Escape")
    expect(chosen(page)).to_have_count(0)
    row(page, "c-005").get_by_role("link", name="c-005", exact=True).focus()
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(box(page, "c-006")).to_be_checked()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Shift+X")
    expect(chosen(page)).to_have_count(2)
    page.keyboard.press("a")
    expect(chosen(page)).to_have_count(PAGE_SIZE)
    page.get_by_label("that match").check()
    expect(page.locator("#bulk")).to_contain_text(f"{PAGE_SIZE + 10} devices selected")
    dialog = bulk(page, "Delete")
    expect(dialog).to_contain_text(f"Delete {PAGE_SIZE + 10} devices?")
    expect(dialog).to_contain_text("This cannot be undone")
    dialog.get_by_role("button", name="Cancel").or_(dialog.get_by_role("link", name="Cancel")).click()
    expect(chosen(page)).to_have_count(PAGE_SIZE)
    page.get_by_role("button", name="Choose none").click()
    expect(page.locator("#bulk")).to_be_hidden()


def test_deleting_many_keeps_the_page_and_its_filter(visit: Visit, crowd: Place) -> None:
    page = live(visit("/devices?q=c-0&sort=-name&page=2", crowd))
    mark(page)
    for hostname in ("c-003", "c-002"):
        box(page, hostname).check()
    dialog = bulk(page, "Delete")
    expect(dialog).to_contain_text("c-003")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator("#toasts")).to_contain_text("2 devices are deleted.")
    expect(row(page, "c-003")).to_have_count(0)
    expect(row(page, "c-001")).to_be_visible()
    expect(page).to_have_url(re.compile(r"\?q=c-0&sort=-name&page=2$"))
    expect(page.locator("#bulk")).to_be_hidden()
    assert not_reloaded(page)


def test_approving_many_says_what_was_left(visit: Visit, crowd: Place) -> None:
    page = live(visit("/devices?sort=name", crowd))
    for hostname in ("c-000", "c-001", "c-010"):
        box(page, hostname).check()
    dialog = bulk(page, "Approve")
    expect(dialog).to_contain_text("Approve 2 devices?")
    expect(dialog).to_contain_text("1 device is left as it is: it does not wait for approval")
    dialog.get_by_role("button", name="Approve").click()
    expect(page.locator("#toasts")).to_contain_text("2 devices are approved.")
    expect(row(page, "c-010")).to_contain_text("Offline")
    expect(chosen(page)).to_have_count(0)


def test_a_row_that_changes_stays_chosen(visit: Visit, crowd: Place) -> None:
    device = crowd.device("changing", approved=True)
    page = live(visit("/devices?q=changing", crowd))
    box(page, "changing").check()
    device.listen()
    expect(row(page, "changing")).to_contain_text("Online")
    expect(box(page, "changing")).to_be_checked()
    expect(page.locator("#bulk")).to_contain_text("1 device selected")


def test_search_goes_anywhere_by_keys(visit: Visit, crowd: Place) -> None:
    page = live(visit("/keys", crowd))
    page.keyboard.press("Control+k")
    expect(page.locator("#palette-input")).to_be_focused()
    expect(page.get_by_role("option", name="Add device")).to_be_visible()
    page.keyboard.type("c-04")
    expect(page.locator("#palette-results")).to_have_attribute("data-query", "c-04")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#palette-results [aria-selected=true]")).to_contain_text("c-041")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("c-041")
    page.keyboard.press("Control+k")
    page.keyboard.type("shortcuts")
    page.keyboard.press("Enter")  # before the answer is there
    expect(page.get_by_role("heading", name="Keyboard shortcuts")).to_be_visible()


def test_keys_of_one_letter_can_be_switched_off(visit: Visit, crowd: Place) -> None:
    page = live(visit("/devices", crowd))
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    dialog.get_by_label("Keys of one letter").uncheck()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.keyboard.press("a")
    expect(chosen(page)).to_have_count(0)
    page.keyboard.press("Control+k")
    expect(page.locator("#palette-input")).to_be_focused()
    page.keyboard.press("Escape")
    page.reload()
    live(page)
    page.keyboard.press("?")
    expect(page.locator("#sheet")).not_to_have_attribute("open", "")


def test_notes_and_tags_of_a_device(visit: Visit, crowd: Place) -> None:
    crowd.device("noted", approved=True).close()
    page = live(visit(f"/devices/{crowd.node('noted')['nodeId']}", crowd))
    page.get_by_role("link", name="Write notes").click()
    dialog = page.get_by_role("dialog", name="Notes on noted")
    dialog.get_by_label("Notes").fill("In the cellar\nAsk Marta")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("#notes")).to_contain_text("In the cellar")
    expect(page.locator("#history")).to_contain_text("Notes changed")
    page.get_by_role("link", name="Rename").first.click()
    page.get_by_role("dialog", name="Rename noted").get_by_label("Name").fill("cellar")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("cellar")
    page.get_by_role("link", name="Give it tags").click()
    dialog = page.get_by_role("dialog", name="Tags of cellar")
    expect(dialog).to_contain_text("its key never ends")
    dialog.get_by_label("Tags").fill("web eu")
    dialog.get_by_role("button", name="Set tags").click()
    expect(page.locator("#device .page-head")).to_contain_text("tag:eu, tag:web")


def test_the_list_is_a_file_by_its_filter(visit: Visit, crowd: Place) -> None:
    page = live(visit("/devices?q=c-02&sort=-name", crowd))
    with page.expect_download() as started:
        page.get_by_role("link", name="CSV").click()
    path = started.value.path()
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    assert lines[0].startswith("name,full_name,state")
    assert [line.split(",")[0] for line in lines[1:]] == [f"c-02{digit}" for digit in range(9, -1, -1)]


def test_a_phone_chooses_and_filters_in_spanish(visit: Visit, crowd: Place) -> None:
    page = live(visit("/devices?sort=name", crowd, phone=True, spanish=True))
    row(page, "c-004").get_by_role("checkbox").check()
    expect(page.locator("#bulk")).to_contain_text("1 dispositivo seleccionado")
    page.locator("#bulk").get_by_role("button", name="Borrar").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("¿Borrar 1 dispositivo?")
    expect(dialog).to_contain_text("No se puede deshacer")
    dialog.get_by_role("link", name="Cancelar").click()
    page.get_by_text("Más filtros").click()
    page.get_by_label("Última conexión").select_option("30")
    expect(page).to_have_url(re.compile("seen=30"))
    expect(page.locator("#device-list")).to_contain_text("Ningún dispositivo")


def test_pages_weigh_little(server: Server, visit: Visit, crowd: Place) -> None:
    page = live(visit("/devices", crowd))
    page.wait_for_load_state("networkidle")
    first = page.evaluate(CROSSED)
    page.goto(f"{server.url}/devices?sort=-name")
    live(page)
    page.wait_for_load_state("networkidle")
    later = page.evaluate(CROSSED)
    print(f"first load {first / 1000:.1f} KB, later {later / 1000:.1f} KB")
    assert 0 < first < FIRST_BYTES
    assert 0 < later < LATER_BYTES
