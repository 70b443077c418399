"""Keys, tokens and clients by hand, in both languages, wide and narrow: made, seen once, used, revoked."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Place, Visit, live, mark, not_reloaded

pytestmark = pytest.mark.browser


def fits(page: Page) -> bool:
    """No page is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_a_token_is_made_seen_by_others_and_revoked(visit: Visit, place: Place) -> None:
    page, other = live(visit("/keys?show=tokens", place)), live(visit("/keys?show=tokens", place))
    mark(other)
    page.locator("main").get_by_role("link", name="Create API token").first.click()
    dialog = page.get_by_role("dialog", name="Create an API token")
    expect(dialog.get_by_label("What it is for")).to_be_focused()
    dialog.get_by_label("What it is for").fill("backups")
    dialog.get_by_label("Read everything").check()
    expect(dialog.locator(".scope-table")).to_be_hidden()
    dialog.get_by_label("Only what you choose").check()
    dialog.get_by_label("DNS").select_option("Read")
    dialog.get_by_role("button", name="Create token").click()
    made = page.get_by_role("dialog", name="Your new token")
    expect(made.locator("#secret")).to_contain_text("tskey-api-")
    secret = made.locator("#secret").inner_text()
    made.get_by_role("link", name="I have it, close").click()
    expect(page.locator("#secret")).to_have_count(0)
    for one in (page, other):
        expect(one.locator("#key-list tbody tr")).to_contain_text("backups")
        expect(one.locator("#key-list tbody tr")).to_contain_text("dns:read")
        assert secret not in one.content()
    page.get_by_role("link", name="Revoke").click()
    asked = page.get_by_role("dialog", name="Revoke backups?")
    expect(asked).to_contain_text("refused from now on")
    asked.get_by_role("button", name="Revoke").click()
    for one in (page, other):
        expect(one.locator("#key-list tbody tr .state")).to_have_text("Revoked")
    assert not_reloaded(other)


def test_a_client_and_its_filters(visit: Visit, place: Place) -> None:
    page = live(visit("/keys", place))
    page.get_by_role("link", name="OAuth clients").click()
    expect(page).to_have_url(f"{place.server.url}/keys?show=clients")
    page.locator("main").get_by_role("link", name="Create OAuth client").first.click()
    dialog = page.get_by_role("dialog", name="Create an OAuth client")
    dialog.get_by_label("What it is for").fill("ci runner")
    dialog.get_by_label("Read everything").check()
    dialog.get_by_label("Tags").fill("ci")
    dialog.get_by_role("button", name="Create client").click()
    made = page.get_by_role("dialog", name="The new client")
    expect(made.locator("#secret")).to_contain_text("tskey-client-")
    made.get_by_role("link", name="I have it, close").click()
    row = page.locator("#key-list tbody tr")
    expect(row).to_contain_text("tag:ci")
    page.get_by_label("Search in the list").fill("nothing-like-this")
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    expect(page).to_have_url(f"{place.server.url}/keys?show=clients&q=nothing-like-this&state=")
    page.get_by_role("link", name="Clear").click()
    expect(row).to_contain_text("ci runner")


def test_a_new_auth_key_is_scanned_from_the_screen(visit: Visit, place: Place) -> None:
    page = live(visit("/keys", place))
    create = page.locator("main").get_by_role("link", name="Create auth key")
    for number in (1, 2):  # from the empty list, and from beside the filters
        create.click()
        page.get_by_role("dialog").get_by_role("button", name="Create key").click()
        code = page.get_by_role("img", name="QR code of the key")
        expect(code).to_be_hidden()
        page.get_by_text("As a QR code").click()
        expect(code).to_be_visible()
        page.get_by_role("link", name="I have it, close").click()
        expect(page.locator("#key-list tbody tr")).to_have_count(number)
    expect(page).to_have_url(f"{place.server.url}/keys")


@pytest.mark.parametrize("phone", [False, True])
def test_in_spanish_everything_is_there_and_fits(visit: Visit, place: Place, phone: bool) -> None:
    page = live(visit("/keys?show=tokens", place, spanish=True, phone=phone))
    assert fits(page)
    page.locator("main").get_by_role("link", name="Crear token de API").first.click()
    dialog = page.get_by_role("dialog", name="Crear un token de API")
    dialog.get_by_label("Solo lo que elijas").check()
    expect(dialog.locator(".scope-table")).to_be_visible()
    assert fits(page)
    dialog.get_by_role("link", name="Cancelar").click()
    page.goto(f"{place.server.url}/api")
    expect(page.get_by_role("heading", name="URL base")).to_be_visible()
    expect(page.get_by_role("link", name="Referencia")).to_be_visible()
    assert fits(page)


def test_the_api_page_leads_to_a_token(visit: Visit, place: Place) -> None:
    page = live(visit("/api", place))
    expect(page.get_by_text(f'curl -u "$TRENZA_API_KEY:" {place.server.url}')).to_be_visible()
    page.locator("main").get_by_role("link", name="Create API token").click()
    expect(page.get_by_label("What it is for")).to_be_visible()
    assert fits(page)
