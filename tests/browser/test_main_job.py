"""The panel's main job in a real browser: sign in, let a device in, see it turn online, hand out a key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Complaints, Place, Visit, live, mark, not_reloaded, row
from tests.browser.server import Server

pytestmark = pytest.mark.browser


def test_signing_in_by_link_works_once(
    server: Server, visit: Visit, place: Place, complaints: Complaints
) -> None:
    link = server.sign_in_link(place.owner)
    page = visit("/devices")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(link)
    expect(page).to_have_url(re.compile("/devices$"))
    expect(page.get_by_role("heading", name="Add your first device")).to_be_visible()
    answer = page.goto(link)
    assert answer is not None
    assert answer.status == 410
    expect(page.get_by_role("heading", name="This link no longer works")).to_be_visible()
    assert all("410" in said for said in complaints)
    complaints.clear()


def test_a_waiting_device_appears_is_approved_and_turns_online(visit: Visit, place: Place) -> None:
    page = live(visit("/devices", place))
    mark(page)
    device = place.device("pi")
    waiting = row(page, "pi")
    expect(waiting).to_contain_text("Needs approval")
    expect(page.locator("#pending-badge")).to_contain_text("1")
    waiting.get_by_role("button", name="Approve pi").click()
    expect(waiting).to_contain_text("Offline")
    expect(page.get_by_text("pi is approved.")).to_be_visible()
    expect(page.locator("#pending-badge .count")).to_have_count(0)
    device.listen()
    expect(waiting).to_contain_text("Online")
    expect(page.locator("#device-tabs")).to_contain_text("Online1")
    assert not_reloaded(page)
    assert place.node("pi")["online"] is True
    device.close()
    expect(waiting).to_contain_text("Offline", timeout=30_000)
    assert not_reloaded(page)


def test_a_key_is_made_shown_once_and_downloaded(
    server: Server, visit: Visit, place: Place, tmp_path: Path
) -> None:
    page = live(visit("/keys", place))
    page.locator("main").get_by_role("link", name="Create auth key").first.click()
    dialog = page.get_by_role("dialog", name="Create an auth key")
    expect(dialog.get_by_label("What it is for")).to_be_focused()
    dialog.get_by_label("What it is for").fill("build machines")
    dialog.get_by_label("Reusable").check()
    dialog.get_by_label("Pre-approved").check()
    dialog.get_by_label("Tags").fill("build")
    dialog.get_by_role("button", name="Create key").click()
    made = page.get_by_role("dialog", name="Your new key")
    secret = made.locator("#secret").inner_text()
    assert secret.startswith("tskey-auth-")
    for button, name, needle in (
        ("Shell script", "trenza-join.sh", f"TRENZA_AUTH_KEY='{secret}'"),
        ("cloud-init", "trenza-cloud-init.yaml", f"TRENZA_AUTH_KEY={secret}"),
        (".env file", "trenza.env", f"TRENZA_CONTROL_URL={server.url}"),
    ):
        with page.expect_download() as waiting:
            made.get_by_role("button", name=button).click()
        assert waiting.value.suggested_filename == name
        waiting.value.save_as(tmp_path / name)
        assert needle in (tmp_path / name).read_text()
    page.mouse.click(5, 5)  # a stray click beside it does not lose the key
    expect(made).to_be_visible()
    made.get_by_role("link", name="I have it, close").click()
    expect(page.locator("#secret")).to_have_count(0)
    listed = page.locator("#key-list tr", has_text="build machines")
    expect(listed).to_contain_text("Pre-approved")
    expect(listed).to_contain_text("tag:build")
    assert secret not in page.content()
    assert place.machine("builder").register(auth_key=secret)["MachineAuthorized"] is True
    expect(listed.locator("td.used")).to_contain_text("1 time")


def test_a_machine_that_waits_at_its_link_is_let_in(server: Server, visit: Visit, place: Place) -> None:
    device = place.machine("visitor", system="macOS")
    url = str(device.register()["AuthURL"])
    page = visit(url.removeprefix(server.url))
    expect(page).to_have_url(re.compile("/sign-in"))  # signed out: sign in first, then back to it
    page.goto(server.sign_in_link(place.owner, "--tailnet", place.name))
    expect(page.get_by_role("heading", name="Let this device in?")).to_be_visible()
    for text in ("visitor", "macOS", "127.0.0.1", place.name):
        expect(page.locator(".facts")).to_contain_text(text)
    page.get_by_role("button", name="Add this device").click()
    page.get_by_role("button", name="Approve it now").click()
    expect(page.get_by_role("heading", name="visitor")).to_be_visible()
    expect(page.locator("#device")).to_contain_text("Offline")
    assert device.register(followup=url)["MachineAuthorized"] is True
    device.listen()
    expect(page.locator("#device .page-head")).to_contain_text("Online")


def test_the_instructions_wait_for_the_device(visit: Visit, place: Place) -> None:
    page = live(visit("/devices", place))
    mark(page)
    page.get_by_role("link", name="Add device").first.click()
    dialog = page.get_by_role("dialog", name="Add a device")
    for system in ("macOS", "Windows", "iPhone, iPad", "Android", "Servers", "Linux"):
        dialog.get_by_role("link", name=system, exact=True).click()
        expect(dialog.locator(".os-tabs [aria-current]")).to_have_text(system)
    expect(dialog.locator("#arrivals")).to_contain_text("Waiting for your device")
    place.device("fresh")
    arrived = dialog.locator("#arrivals")
    expect(arrived).to_contain_text("fresh")
    arrived.get_by_role("button", name="Approve").click()
    expect(arrived).to_contain_text("Offline")
    assert not_reloaded(page)
