"""Keyboard, language, theme, and what a person is told when something is refused."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Complaints, Place, Visit, live, row
from tests.browser.server import Server

pytestmark = pytest.mark.browser


def focused(page: Page) -> str:
    """The accessible name, or the text, of what has the focus."""
    return str(
        page.evaluate("(document.activeElement.ariaLabel || document.activeElement.textContent || '').trim()")
    )


def test_the_keyboard_reaches_everything(visit: Visit, place: Place) -> None:
    place.device("keys-a", approved=True)
    page = live(visit("/devices", place))
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to content"
    page.keyboard.press("/")
    expect(page.locator("#list-search")).to_be_focused()
    page.keyboard.type("keys")
    expect(page).to_have_url(re.compile("q=keys"))
    expect(page.locator("#list-search")).to_be_focused()
    expect(page.locator("#list-search")).to_have_value("keys")
    button = row(page, "keys-a").get_by_role("button", name="Actions for keys-a")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".menu:popover-open .menu-item").first).to_be_focused()
    page.keyboard.press("ArrowDown")
    assert focused(page) == "Rename…"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert focused(page) == "Delete…"
    page.keyboard.press("Escape")
    expect(button).to_be_focused()


def test_a_dialog_holds_the_focus_and_gives_it_back(visit: Visit, place: Place) -> None:
    place.device("dialog-a", approved=True)
    page = live(visit("/devices", place))
    button = row(page, "dialog-a").get_by_role("button", name="Actions for dialog-a")
    button.focus()
    for key in ("Enter", "ArrowDown", "Enter"):
        page.keyboard.press(key)
        page.wait_for_timeout(50)
    dialog = page.get_by_role("dialog", name="Rename dialog-a")
    expect(dialog.get_by_label("Name")).to_be_focused()
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement.closest('dialog') !== null || document.activeElement === document.body"
        )
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()


def test_a_wrong_name_is_said_where_it_is(visit: Visit, place: Place, complaints: Complaints) -> None:
    place.device("named", approved=True)
    page = live(visit("/devices", place))
    row(page, "named").get_by_role("button", name="Actions for named").click()
    page.get_by_role("link", name="Rename…").click()
    field = page.get_by_role("dialog").get_by_label("Name")
    field.fill("no spaces")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Use 1 to 63 of a-z, 0-9 and hyphens")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    field.fill("renamed")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(row(page, "renamed")).to_be_visible()
    expect(page.locator("#toasts")).to_contain_text("It is now called renamed.")
    assert all("422" in said for said in complaints)
    complaints.clear()


def test_approving_by_keyboard_keeps_ones_place(visit: Visit, place: Place) -> None:
    place.device("kb-first")
    page = live(visit("/devices?state=pending", place))
    row(page, "kb-first").get_by_role("button", name="Approve kb-first").focus()
    page.keyboard.press("Enter")
    expect(row(page, "kb-first")).to_contain_text("Offline")
    expect(row(page, "kb-first").locator(":focus")).to_have_count(1)


def test_a_refusal_is_said(server: Server, visit: Visit, place: Place, complaints: Complaints) -> None:
    place.device("twice")
    page = live(visit("/devices", place))
    page.evaluate(
        "document.querySelectorAll('[data-live]').forEach((one) => one.removeAttribute('data-live'))"
    )
    page.route("**/approve", lambda route: route.fulfill(status=500))
    row(page, "twice").get_by_role("button", name="Approve twice").click()
    expect(page.locator("#toasts .error")).to_contain_text("The server had a problem")
    page.unroute("**/approve")
    page.route("**/approve", lambda route: route.abort())
    row(page, "twice").get_by_role("button", name="Approve twice").click()
    expect(page.locator("#toasts .error").last).to_contain_text("does not answer")
    complaints.clear()


def test_a_session_that_ended_leads_to_the_sign_in_page(visit: Visit, place: Place) -> None:
    place.device("late")
    page = live(visit("/devices", place))
    page.context.clear_cookies(name="trenza_session")
    row(page, "late").get_by_role("link", name="late", exact=True).click()
    expect(page).to_have_url(re.compile(r"/sign-in\?next=%2Fdevices%2F"))


def test_language_and_theme_are_switched_and_kept(server: Server, visit: Visit, place: Place) -> None:
    page = live(visit("/keys", place))
    assert page.evaluate("getComputedStyle(document.body).colorScheme || 1")
    page.get_by_role("button", name="Account").click()
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
    page.get_by_role("button", name="Account").click()
    page.get_by_role("button", name="Español").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Claves")
    expect(page.locator("html")).to_have_attribute("lang", "es")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
    again = visit("/sign-in")  # in another browser: from the next sign-in on
    again.goto(server.sign_in_link(place.owner, "--tailnet", place.name))
    expect(again.get_by_role("heading", level=1)).to_have_text("Resumen")
    again.get_by_role("button", name="Cuenta").click()
    again.get_by_role("button", name="English").click()
    expect(again.get_by_role("heading", level=1)).to_have_text("Overview")


def test_the_theme_follows_the_system_until_one_is_chosen(visit: Visit) -> None:
    page = visit("/sign-in", dark=True)
    expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
    page.emulate_media(color_scheme="light")
    expect(page.locator("html")).to_have_attribute("data-bs-theme", "light")


def test_the_menu_of_a_phone(visit: Visit, place: Place) -> None:
    page = live(visit("/devices", place, phone=True))
    expect(page.get_by_role("link", name="Relays")).to_be_hidden()
    page.get_by_role("button", name="Menu", exact=True).click()
    expect(page.get_by_role("link", name="Overview")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Menu", exact=True)).to_be_focused()
    page.get_by_role("button", name="Menu", exact=True).click()
    page.get_by_role("link", name="Relays").click()
    expect(page).to_have_url(re.compile("/relays$"))


def test_times_are_in_the_readers_zone(chrome: object, server: Server, place: Place) -> None:
    place.device("clock", approved=True)
    node = place.node("clock")
    context = chrome.new_context(locale="en-GB", timezone_id="Asia/Kathmandu")  # type: ignore[attr-defined]
    page = context.new_page()
    page.goto(server.sign_in_link(place.owner, "--tailnet", place.name))
    page.goto(f"{server.url}/devices/{node['nodeId']}")
    shown = page.locator("time[data-moment]").first
    expected = shown.evaluate(
        "(one) => new Date(one.dateTime).toLocaleString('en-GB', {dateStyle: 'medium', timeStyle: 'short'})"
    )
    assert shown.inner_text() == expected
    assert "UTC" not in expected
    context.close()
