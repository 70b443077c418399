"""The API's pages for people: found, tried, and drawn under the policy that lets no foreign code in."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Place, Visit, live
from tests.browser.test_keys import fits

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("phone", [False, True])
def test_the_reference_is_drawn_in_each_theme(visit: Visit, place: Place, phone: bool, dark: bool) -> None:
    page = live(visit("/api/reference", place, phone=phone, dark=dark))
    page.wait_for_selector("#reference[data-drawn]")
    heading = page.locator("#operations-tag-Trenza")
    expect(heading).to_be_visible()
    heading.click()
    expect(page.get_by_text("/exit-node").first).to_be_visible()
    themed = page.evaluate("document.documentElement.classList.contains('dark-mode')")
    assert themed is dark
    assert fits(page)


def test_a_call_is_tried_with_a_token(visit: Visit, place: Place) -> None:
    page = live(visit("/api/reference", place))
    page.wait_for_selector("#reference[data-drawn]")
    token = place.server.command("createapitoken", place.name, "--user", place.owner, "--json")["key"]
    page.locator(".btn.authorize").first.click()
    page.locator("#auth-bearer-value").fill(token)
    page.locator(".auth-container", has=page.locator("#auth-bearer-value")).locator(".authorize").click()
    page.locator(".btn-done").first.click()
    page.locator("#operations-tag-Settings").click()
    operation = page.locator("#operations-Settings-getTailnetSettings")
    operation.locator(".opblock-summary").click()
    operation.locator(".try-out__btn").click()
    operation.locator(".execute").click()
    expect(operation.locator(".live-responses-table .response .response-col_status")).to_contain_text("200")


def test_calls_are_found_while_one_types(visit: Visit, place: Place) -> None:
    page = live(visit("/api/calls", place))
    page.get_by_role("searchbox").fill("exit-node")
    expect(page.locator(".calls details")).to_have_count(2)
    page.locator(".calls summary").first.click()
    expect(page.get_by_text("curl -u").first).to_be_visible()
    assert fits(page)
