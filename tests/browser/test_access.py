"""Access controls by hand: rules are written, tried and saved; errors stand at their line."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import chromium
from tests.browser.conftest import Complaints, Place, Visit, live, mark, not_reloaded
from tests.browser.screenshots import add_rule, write_policy
from tests.browser.server import Server

pytestmark = pytest.mark.browser

TEXT = """\
{
	// Who owns what.
	"tagOwners": {"tag:db": ["autogroup:admin"], "tag:web": ["autogroup:admin"]},
	"acls": [
		{"action": "accept", "src": ["tag:web"], "dst": ["tag:db:5432"]}, // the shop
	],
	"tests": [{"src": "tag:web", "accept": ["tag:db:5432"], "deny": ["tag:db:22"]}],
}
"""


def opened(visit: Visit, place: Place) -> Page:
    page = live(visit("/access", place))
    page.wait_for_selector("#access[data-ready]")
    return page


def text_of(page: Page) -> str:
    """The editor's text; a short one is in the page as a whole."""
    lines = page.locator(".cm-content > .cm-line").evaluate_all("all => all.map((one) => one.textContent)")
    return "\n".join(lines)


def save(page: Page) -> None:
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#save-bar")).to_be_hidden()


@pytest.fixture
def start(visit: Visit, place: Place) -> Page:
    """The page with our text in force."""
    page = opened(visit, place)
    write_policy(page, TEXT)
    if page.locator("#save-bar").is_visible():
        save(page)
    return page


def test_a_rule_is_written_in_a_dialog_and_seen_by_others_without_a_reload(
    start: Page, visit: Visit, place: Place
) -> None:
    page, other = start, opened(visit, place)
    for one in (page, other):
        mark(one)
    add_rule(page, "acls", src="tag:web", dst="tag:db:6432")
    expect(page.locator("#rules")).to_contain_text("port 6432")
    assert '"dst": ["tag:db:6432"]' in text_of(page)
    assert "// the shop" in text_of(page)
    page.get_by_label("What changes, and why (optional)").fill("a second port")
    save(page)
    expect(other.get_by_text("has changed the policy since you opened this page")).to_be_visible()
    expect(page.locator("#access-news")).not_to_contain_text("has changed")
    assert not_reloaded(page)
    assert not_reloaded(other)
    page.get_by_role("button", name="History").click()
    expect(page.locator(".version-list li").first).to_contain_text("a second port")


def test_rules_move_and_go_and_a_slip_is_taken_back(start: Page) -> None:
    page = start
    add_rule(page, "acls", src="tag:db", dst="tag:web:443")
    page.locator("#open-acls-2").click()
    page.get_by_role("button", name="Move up").click()
    expect(page.locator("#rule-acls-1")).to_contain_text("port 443")
    page.locator("#open-acls-1").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("#rules .rule")).to_have_count(1)
    expect(page.locator("#save-bar")).to_be_hidden()  # it is the saved text again
    assert text_of(page) == TEXT
    page.locator(".cm-content").focus()
    page.keyboard.press("Control+z")
    expect(page.locator("#rules .rule")).to_have_count(2)
    page.locator("#rule-acls-2").get_by_role("button").click()
    page.get_by_role("button", name="Show in the text").click()
    expect(page.locator(".cm-content")).to_be_focused()
    page.get_by_role("link", name="Discard").click()
    page.wait_for_selector("#access[data-ready]")
    assert text_of(page) == TEXT


def test_what_is_wrong_stands_at_its_line_and_is_not_saved(start: Page, complaints: Complaints) -> None:
    page = start
    write_policy(page, TEXT.replace('"acls": [', '"acls": [,'))
    expect(page.locator("#access-side").get_by_role("link", name="Line 4")).to_be_visible()
    expect(page.locator(".cm-lint-marker-error")).to_have_count(1)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#access-side [role=alert]")).to_be_visible()
    complaints.clear()  # the browser names every answer that is no success
    expect(page.locator("#save-bar")).to_be_visible()
    write_policy(
        page,
        TEXT.replace('"deny": ["tag:db:22"]', '"accept": ["tag:db:22"]').replace(
            '5432"], "accept"', '5432", "tag:db:22"], "deny"'
        ),
    )
    page.keyboard.press("Control+s")
    expect(page.get_by_text("Not saved: tests of this policy fail")).to_be_visible()
    complaints.clear()
    expect(page.locator(".test-error")).to_be_visible()


def test_the_preview_says_who_gains(start: Page, place: Place) -> None:
    page = start
    place.device("db-1", approved=True)
    write_policy(page, '{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:443"]}]}')
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#access-side")).to_contain_text("Nobody gains or loses")
    place.device("db-2", approved=True)
    page.get_by_role("button", name="Compare again").click()
    expect(page.locator(".preview-list .is-gain").first).to_contain_text("port 443")


def test_nobody_is_overwritten(start: Page, visit: Visit, place: Place, complaints: Complaints) -> None:
    page, other = start, opened(visit, place)
    add_rule(page, "acls", src="tag:web", dst="tag:db:1111")
    save(page)
    add_rule(other, "acls", src="tag:web", dst="tag:db:2222")
    other.get_by_role("button", name="Save", exact=True).click()
    expect(other.get_by_text("has saved another policy meanwhile")).to_be_visible()
    complaints.clear()
    other.get_by_role("button", name="Save mine in its place").click()
    expect(other.locator("#save-bar")).to_be_hidden()
    page.goto(page.url)
    page.wait_for_selector("#access[data-ready]")
    assert "2222" in text_of(page)
    assert "1111" not in text_of(page)


def test_an_earlier_version_comes_back(start: Page) -> None:
    page = start
    write_policy(page, '{"acls": []}')
    save(page)
    page.get_by_role("button", name="History").click()
    page.locator(".version-list .thing-name").nth(1).click()
    page.get_by_role("link", name="Restore it").click()
    page.get_by_role("dialog").get_by_role("button", name="Restore").click()
    page.wait_for_selector("#access[data-ready]")
    assert text_of(page) == TEXT


def test_all_of_it_works_without_scripts(start: Page, chrome: Browser, server: Server, place: Place) -> None:
    assert start.url
    context = chrome.new_context(**chromium.page_options(), java_script_enabled=False)
    context.add_cookies(place.cookies)
    page = context.new_page()
    page.goto(f"{server.url}/access")
    page.get_by_role("button", name="Add rule").click()
    page.get_by_label("From", exact=True).fill("tag:web")
    page.get_by_label("To", exact=True).fill("tag:db:7777")
    page.get_by_role("button", name="Add it").click()
    expect(page.locator("#rules")).to_contain_text("port 7777")
    page.get_by_role("button", name="Tests").click()
    expect(page.locator("#access-side")).to_contain_text("All hold")
    assert "7777" in page.locator("#policy-text").input_value()
    page.get_by_role("button", name="Save", exact=True).click()
    page.goto(f"{server.url}/access?show=history")
    expect(page.locator(".version-list li").first).to_be_visible()
    assert "7777" in page.locator("#policy-text").input_value()
    context.close()
