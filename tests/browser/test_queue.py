"""What waits appears by itself, is decided about by hand, and the pages around it follow."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Place, Visit, live, mark, not_reloaded
from tests.browser.server import Server

pytestmark = pytest.mark.browser

EXIT = ["0.0.0.0/0", "::/0"]


def entry(page: Page, name: str) -> Locator:
    return page.locator("#queue tbody tr", has=page.locator(".thing-name", has_text=name))


def test_what_waits_appears_and_is_approved_at_once(visit: Visit, place: Place) -> None:
    page = live(visit("/approvals", place))
    overview = live(visit("/", place))
    for one in (page, overview):
        mark(one)
    expect(page.locator("#queue")).to_contain_text("Nothing is waiting")
    expect(page.locator("#top-waiting")).to_be_hidden()
    expect(overview.locator(".first-steps li.is-done")).to_have_count(0)

    place.device("first")
    expect(entry(page, "first")).to_be_visible()
    expect(page.locator("#pending-badge")).to_contain_text("1")
    expect(page.locator("#top-waiting .count")).to_have_text("1")
    expect(overview.locator("#tile-waiting")).to_have_text("1")
    expect(overview.locator("#review")).to_contain_text("Review pending (1)")

    place.device("gate", approved=True, RoutableIPs=["10.20.0.0/16", *EXIT])
    expect(entry(page, "10.20.0.0/16")).to_contain_text("through gate")
    expect(entry(page, "gate")).to_have_count(1)
    expect(page.locator("#queue-tabs")).to_contain_text("Exit nodes1")

    entry(page, "first").get_by_role("checkbox").check()
    entry(page, "10.20.0.0/16").hover()
    place.device("late")
    expect(page.locator(".new-bar")).to_be_visible()
    expect(entry(page, "late")).to_have_count(0)
    page.get_by_role("button", name="Show changes").click()
    expect(entry(page, "late")).to_be_visible()
    expect(entry(page, "first").get_by_role("checkbox")).to_be_checked()

    page.get_by_role("checkbox", name="Select all").check()
    expect(page.locator("[data-picked]")).to_have_text("4")
    page.get_by_role("button", name="Approve selected").click()
    expect(page.locator("#toasts")).to_contain_text("4 are approved.")
    expect(overview.locator("#tile-waiting")).to_have_text("0")
    expect(page.locator("#pending-badge .count")).to_have_count(0)
    expect(page.locator("#top-waiting")).to_be_hidden()
    page.mouse.move(0, 0)
    expect(overview.locator("#tile-online")).to_have_text("0/3")
    assert place.node("first")["authorized"]
    for one in (page, overview):
        assert not_reloaded(one)


def test_on_a_phone_in_spanish_one_is_approved_and_one_rejected(visit: Visit, place: Place) -> None:
    page = live(visit("/approvals", place, phone=True, spanish=True))
    mark(page)
    place.device("buena")
    place.device("ajena")
    entry(page, "buena").get_by_role("button", name="Aprobar buena").click()
    expect(page.locator("#toasts")).to_contain_text("buena")
    expect(page.locator("#queue")).to_contain_text("ajena")
    entry(page, "ajena").get_by_role("link", name="Rechazar ajena").click()
    dialog = page.get_by_role("dialog", name="¿Rechazar ajena?")
    expect(dialog).to_contain_text("alguien tiene que iniciar sesión otra vez")
    dialog.get_by_role("button", name="Rechazar", exact=True).click()
    expect(page.locator("#toasts")).to_contain_text("ajena queda rechazado.")
    expect(page.locator("#top-waiting")).to_be_hidden()
    page.reload()
    expect(page.locator("#queue")).to_contain_text("Nada en espera")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_routes_follow_what_is_switched_and_who_is_there(visit: Visit, place: Place) -> None:
    page = live(visit("/routes?q=10.44", place))
    mark(page)
    place.device("lan-a", approved=True, online=True, RoutableIPs=["10.44.0.0/16"])
    row = page.locator("#route-list tbody tr")
    expect(row).to_contain_text("Waiting")
    page.get_by_role("switch", name="Approve 10.44.0.0/16 through lan-a").click()
    expect(page.locator("#toasts")).to_contain_text("Others reach 10.44.0.0/16.")
    expect(row).to_contain_text("Serving")
    expect(page.get_by_role("switch", name="Approve 10.44.0.0/16 through lan-a")).to_be_focused()
    place.device("lan-b", approved=True, online=True, RoutableIPs=["10.44.0.0/16"])
    # The switch has the focus: nothing moves by itself.
    page.get_by_role("button", name="Show changes").click()
    page.get_by_role("switch", name="Approve 10.44.0.0/16 through lan-b").click()
    expect(row.nth(1)).to_contain_text("Stands by")
    expect(row.nth(0)).to_contain_text("also through lan-b")
    assert not_reloaded(page)


def test_a_member_lands_at_their_own_devices(server: Server, visit: Visit, place: Place) -> None:
    link = server.sign_in_link(f"member@{place.name}.example", "--tailnet", place.name, "--role", "member")
    page = visit(link.removeprefix(server.url), spanish=True, phone=True)
    expect(page).to_have_url(f"{server.url}/my-devices")
    live(page)
    mark(page)
    expect(page.locator("#mine-list")).to_contain_text("Añade tu primer dispositivo")
    key = place.key("--preapproved", "--user", f"member@{place.name}.example")
    mine = place.machine("propio")
    mine.register(auth_key=key)
    mine.listen()
    own = page.locator("#mine-list tbody tr")
    expect(own).to_contain_text("propio")
    expect(own).to_contain_text("En línea")
    expect(page.locator("#reach-list")).to_contain_text("Las reglas de esta tailnet no impiden")
    expect(page.locator("#reach-list tbody tr", has_text="propio")).to_contain_text("tuyo")
    own.get_by_role("button", name="Acciones").click()
    page.get_by_role("link", name="Cambiar nombre…").click()
    page.locator("#sheet #id_name").fill("renombrado")
    page.locator("#sheet button[type=submit]").click()
    expect(own).to_contain_text("renombrado")
    assert not_reloaded(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
