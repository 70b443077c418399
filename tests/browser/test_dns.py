"""The DNS page by hand: what is added stands at once on every open page, what is wrong in the dialog."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Complaints, Place, Visit, live, mark, not_reloaded
from tests.browser.screenshots import add_to_dns

pytestmark = pytest.mark.browser


def test_settings_are_made_and_seen_by_others_without_a_reload(
    visit: Visit, place: Place, complaints: Complaints
) -> None:
    page, other = live(visit("/dns", place)), live(visit("/dns", place))
    for one in (page, other):
        mark(one)
    page.get_by_role("link", name="Add nameserver").click()
    dialog = page.get_by_role("dialog", name="Add a nameserver")
    expect(dialog.get_by_label("Address")).to_be_focused()
    dialog.get_by_label("Address").fill("127.0.0.1")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_text("every device can reach")).to_be_visible()
    complaints.clear()  # the browser names every answer that is no success
    dialog.get_by_label("Address").fill("9.9.9.9")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    add_to_dns(page, "nameserver", {"address": "10.20.0.53", "domain": "corp.example.com"})
    add_to_dns(page, "record", {"name": "printer", "value": "10.20.4.17"})
    page.get_by_role("button", name="Use these in place of the network's own").click()
    for one in (page, other):
        for shown in ("9.9.9.9", "10.20.0.53", "printer.", "Devices ask only these"):
            expect(one.locator("#dns").get_by_text(shown).first).to_be_visible()
    page.get_by_role("link", name="Remove 10.20.0.53 (corp.example.com)").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    for one in (page, other):
        expect(one.locator("#dns").get_by_text("10.20.0.53")).to_have_count(0)
        assert not_reloaded(one)


def test_magic_dns_is_not_switched_off_by_a_slip(visit: Visit, place: Place) -> None:
    page = live(visit("/dns", place))
    page.get_by_role("link", name="Turn off…").click()
    dialog = page.get_by_role("dialog", name="Turn off MagicDNS?")
    dialog.get_by_role("link", name="Cancel").click()
    expect(page.get_by_role("link", name="Turn off…")).to_be_visible()
    page.get_by_role("link", name="Turn off…").click()
    dialog.get_by_role("button", name="Turn off").click()
    page.get_by_role("button", name="Turn on MagicDNS").click()
    expect(page.get_by_role("link", name="Turn off…")).to_be_visible()
