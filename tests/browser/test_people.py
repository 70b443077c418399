"""People by hand: invited, joined, given a role, suspended, restored, removed; the tailnet's own settings.

Each walk is done in both languages and on both kinds of screen.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Place, Visit, live, mark, not_reloaded
from tests.browser.screenshots import invite
from tests.browser.server import Server

pytestmark = pytest.mark.browser

READERS = {
    "english desktop": {},
    "spanish phone": {"phone": True, "spanish": True},
    "english phone": {"phone": True},
    "spanish desktop": {"spanish": True},
}
WORDS = {
    "en": {"waits": "You are suspended", "join": "Join", "auditor": "Auditor", "on": "On", "off": "Off"},
    "es": {"waits": "Estás en suspenso", "join": "Entrar en", "auditor": "Auditor", "on": "Sí", "off": "No"},
}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> dict[str, bool]:
    return dict(READERS[request.param])


def words(reader: dict[str, bool]) -> dict[str, str]:
    return WORDS["es" if reader.get("spanish") else "en"]


def person_row(page: Page, email: str) -> Page:
    return page.locator("#people-list tbody tr", has_text=email)


def from_menu(page: Page, email: str, action: str) -> None:
    """Do something from a row's menu, and confirm it in the dialog."""
    row = person_row(page, email)
    row.locator(".act [popovertarget]").click()
    row.locator(f".menu a[href$='/{action}']").click()
    page.locator("#sheet button[type=submit]").wait_for()


def confirm(page: Page) -> None:
    page.locator("#sheet button[type=submit]").click()
    expect(page.locator("#sheet")).to_be_hidden()


def test_a_colleague_is_invited_joins_and_is_managed(
    visit: Visit, server: Server, place: Place, reader: dict[str, bool]
) -> None:
    said = words(reader)
    page = live(visit("/users", place, **reader))
    mark(page)
    email = f"{'-'.join(sorted(reader)) or 'plain'}@{place.name}.example"
    link = invite(page, email, "member")
    page.locator("#sheet a.btn-primary").click()

    guest = visit(urlsplit(link).path, **reader)
    expect(guest.get_by_role("heading", level=1)).to_contain_text(f"{said['join']} {place.name}")
    guest.locator("a.btn-primary").click()
    assert urlsplit(guest.url).path == "/sign-in"
    guest.goto(server.sign_in_link(email))
    assert guest.url == link  # back at the invitation
    guest.locator("form.stack button").click()
    expect(guest.locator(".tailnet-name")).to_have_text(place.name)

    expect(person_row(page, email)).to_be_visible()
    from_menu(page, email, "role")
    page.check("#sheet input[value=auditor]")
    confirm(page)
    expect(person_row(page, email)).to_contain_text(said["auditor"])

    guest.goto(f"{server.url}/users")
    live(guest)
    from_menu(page, email, "suspend")
    confirm(page)
    expect(guest).not_to_have_url(re.compile("/users"))  # its page ends by itself
    guest.goto(f"{server.url}/tailnets")
    expect(guest.locator(".tailnets li", has_text=place.name).locator(".state-expired")).to_be_visible()
    row = person_row(page, email)
    row.locator(".act [popovertarget]").click()
    row.locator("form[action$='/restore'] button").click()
    expect(row.locator(".state-active")).to_be_visible()

    row.locator(".pick-one").check()
    page.locator("#bulk button[value=delete]").click()
    confirm(page)
    expect(person_row(page, email)).to_have_count(0)
    assert not_reloaded(page)


def test_settings_hold_at_once_and_say_what_is_wrong(
    visit: Visit, place: Place, reader: dict[str, bool], complaints: list[str]
) -> None:
    page, other = (live(visit("/settings", place, **reader)) for _ in range(2))
    mark(page)
    before = page.locator("#users-approval").is_checked()
    page.locator("label.switch", has=page.locator("#users-approval")).click()
    expect(other.locator("#users-approval")).to_be_checked(checked=not before)
    page.fill("#id_display_name", "Harbour")
    page.locator("#settings-general button[type=submit]").click()
    expect(page.locator("#toasts .toast-item").last).to_be_visible()
    page.check("input[name=rotation][value=days]")
    page.fill("#id_rotation_days", "")
    page.locator("#settings-keys .btn-primary").click()
    expect(page.locator("#rotation-days-error")).to_be_visible()
    complaints.clear()  # the browser names every answer that is no success
    page.fill("#id_rotation_days", "7")
    page.locator("#settings-keys .btn-primary").click()
    expect(page.locator("#rotation-days-error")).to_have_count(0)
    page.locator("#rename-tailnet").click()
    page.fill("#sheet #id_name", "no label")
    page.locator("#sheet button[type=submit]").click()
    expect(page.locator("#sheet #name-error")).to_be_visible()
    complaints.clear()
    page.keyboard.press("Escape")
    assert not_reloaded(page)


def test_a_contact_is_set_and_stands_on_every_open_page(
    visit: Visit, place: Place, reader: dict[str, bool], complaints: list[str]
) -> None:
    page, other = (live(visit("/settings", place, **reader)) for _ in range(2))
    mark(page)
    page.locator("#contact-support a").click()
    page.fill("#sheet #id_email", "nobody@nowhere")
    page.locator("#sheet button[type=submit]").click()
    expect(page.locator("#sheet #email-error")).to_be_visible()
    complaints.clear()  # the browser names every answer that is no success
    email = f"support-{'-'.join(sorted(reader)) or 'plain'}@example.com"
    page.fill("#sheet #id_email", email)
    page.locator("#sheet button[type=submit]").click()
    for one in (page, other):
        expect(one.locator("#contact-support .contact-address")).to_contain_text(email)
        expect(one.locator("#contact-support .state-pending")).to_be_visible()
    expect(page.locator("#sheet[open]")).to_have_count(0)
    assert not_reloaded(page)


def test_another_tailnet_is_made_opened_and_deleted_by_typing_its_name(
    visit: Visit, place: Place, reader: dict[str, bool], complaints: list[str]
) -> None:
    name = f"extra-{'-'.join(sorted(reader)) or 'plain'}"
    page = visit("/devices", place, **reader)
    page.locator("[popovertarget=tailnet-menu]").click()
    page.locator("#tailnet-menu a[href='/tailnets/new']").click()
    page.fill("#sheet #id_name", name)
    page.locator("#sheet button[type=submit]").click()
    expect(page.locator(".tailnet-name")).to_have_text(name)

    page.goto(page.url.replace("/devices", "/settings"))
    page.locator("#delete-tailnet").click()
    page.fill("#sheet #id_name", "something else")
    page.locator("#sheet button[type=submit]").click()
    expect(page.locator("#sheet #name-error")).to_be_visible()
    page.fill("#sheet #id_name", name)
    page.locator("#sheet button[type=submit]").click()
    expect(page).to_have_url(re.compile(r":\d+/$"))
    page.goto(f"{page.url}tailnets")
    expect(page.locator(".tailnets li", has_text=name)).to_have_count(0)
    page.locator(".tailnets li", has_text=place.name).locator("button").click()
    expect(page.locator(".tailnet-name")).to_have_text(re.compile(f"{place.name}|Harbour"))
    assert all("422" in said for said in complaints)  # of the wrong name
    complaints.clear()
