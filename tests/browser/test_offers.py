"""Switches of exit nodes and subnets, and the choice of the exit node that a device uses, with real hands."""

from __future__ import annotations

import re
import threading

import pytest
from playwright.sync_api import APIResponse, Locator, Page, Route, expect

from tests.browser.conftest import Complaints, Place, Visit, live, mark, not_reloaded, row
from tests.browser.server import Server

pytestmark = pytest.mark.browser

EXIT = ["0.0.0.0/0", "::/0"]


def page_of(visit: Visit, place: Place, hostname: str, **reader: bool) -> Page:
    return live(visit(f"/devices/{place.node(hostname)['nodeId']}", place, **reader))


def exit_switch(page: Page | Locator, hostname: str) -> Locator:
    return page.get_by_role("switch", name=f"Approve {hostname} as exit node")


def test_a_switch_approves_at_once_and_everywhere(visit: Visit, place: Place) -> None:
    place.device("gate", approved=True, RoutableIPs=["10.20.0.0/16", *EXIT])
    devices = live(visit("/devices", place))
    detail = page_of(visit, place, "gate")
    for page in (devices, detail):
        mark(page)
    expect(row(devices, "gate")).to_contain_text("1 route waits")
    expect(devices.locator("#pending-badge")).to_contain_text("2")
    devices.get_by_role("link", name="Routes waiting").click()
    expect(devices).to_have_url(re.compile("state=routes-waiting"))
    devices.get_by_role("link", name="All", exact=False).first.click()
    exit_switch(detail, "gate").click()
    expect(exit_switch(detail, "gate")).to_be_checked()
    expect(exit_switch(detail, "gate")).to_be_focused()
    expect(detail.locator("#toasts")).to_contain_text("Others may use gate as exit node.")
    expect(exit_switch(row(devices, "gate"), "gate")).to_be_checked()
    detail.get_by_role("switch", name="Approve 10.20.0.0/16").press("Space")
    expect(detail.get_by_role("switch", name="Approve 10.20.0.0/16")).to_be_checked()
    expect(detail.locator("#offers")).not_to_contain_text("Waiting for approval")
    expect(row(devices, "gate")).to_contain_text("1 route")
    expect(devices.locator("#pending-badge .count")).to_have_count(0)
    exit_switch(row(devices, "gate"), "gate").click()
    expect(exit_switch(detail, "gate")).not_to_be_checked()
    expect(devices.locator("#pending-badge .count")).to_have_count(0)
    for page in (devices, detail):
        assert not_reloaded(page)


def test_a_switch_that_was_refused_goes_back(visit: Visit, place: Place, complaints: Complaints) -> None:
    place.device("stubborn", approved=True, RoutableIPs=EXIT)
    page = page_of(visit, place, "stubborn")
    page.route("**/approve-exit-node", lambda route: route.fulfill(status=500))
    exit_switch(page, "stubborn").click()
    expect(page.locator("#toasts .error")).to_contain_text("The server had a problem")
    expect(exit_switch(page, "stubborn")).not_to_be_checked()
    complaints.clear()


def test_a_devices_exit_node_is_set_refused_and_undone(server: Server, visit: Visit, place: Place) -> None:
    place.device("way-out", approved=True, RoutableIPs=EXIT)
    server.command("approveroutes", place.name, "way-out", "--json")
    way_out = place.node("way-out")["nodeId"]
    laptop = place.device("asked", approved=True, App="trenza")
    page = page_of(visit, place, "asked", phone=True)
    choice = page.locator("#exit-choice")
    mark(page)
    page.get_by_label("Exit node that this device uses").select_option(label="way-out (offline)")
    page.get_by_role("button", name="Set", exact=True).click()
    expect(page.locator("#toasts .error")).to_contain_text("asked is not connected.")

    laptop.listen()
    expect(choice).to_contain_text("may refuse")
    page.get_by_label("Exit node that this device uses").select_option(label="way-out (offline)")
    page.get_by_role("button", name="Set", exact=True).click()
    laptop.is_asked("409 Conflict", "it is itself an exit node")
    expect(page.locator("#toasts")).to_contain_text("asked refused: it is itself an exit node")
    expect(choice).to_contain_text("Uses no exit node")

    page.get_by_label("Exit node that this device uses").select_option(label="way-out (offline)")
    page.get_by_role("button", name="Set", exact=True).click()
    question = laptop.is_asked()
    assert question == {"line": "POST /trenza/exit-node HTTP/1.1", "body": {"ExitNodeID": way_out}}
    laptop.says(ExitNodeID=way_out)
    expect(choice).to_contain_text("Uses exit node way-out")
    expect(choice).to_contain_text("set by administrator")
    expect(page.get_by_label("Exit node that this device uses")).to_have_value(way_out)

    page.get_by_role("button", name="Undo").click()
    assert laptop.is_asked()["body"] == {"ExitNodeID": ""}
    laptop.says(ExitNodeID="")
    expect(choice).to_contain_text("Uses no exit node")
    expect(choice).not_to_contain_text("set by administrator")
    assert not_reloaded(page)


def test_news_that_come_before_a_slow_answer_are_not_lost(server: Server, visit: Visit, place: Place) -> None:
    place.device("late-way", approved=True, RoutableIPs=EXIT)
    server.command("approveroutes", place.name, "late-way", "--json")
    laptop = place.device("slow", approved=True, App="trenza")
    laptop.listen()
    page = page_of(visit, place, "slow")
    held: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        answering = threading.Thread(target=laptop.is_asked)
        answering.start()
        held.append((route, route.fetch()))
        answering.join()

    page.route("**/use-exit-node", hold)
    page.get_by_label("Exit node that this device uses").select_option(label="late-way (offline)")
    page.get_by_role("button", name="Set", exact=True).click()
    while not held:
        page.wait_for_timeout(50)
    with page.expect_response(re.compile(r"/devices/\w+$")):
        laptop.says(ExitNodeID=place.node("late-way")["nodeId"])
    route, answer = held[0]
    assert "Uses no exit node" in answer.text(), "it is older than what the page was told since"
    route.fulfill(response=answer)
    expect(page.locator("#exit-choice")).to_contain_text("Uses exit node late-way")


def test_without_scripts_a_form_does_the_same(server: Server, chrome: object, place: Place) -> None:
    place.device("plain", approved=True, RoutableIPs=EXIT)
    context = chrome.new_context(java_script_enabled=False)  # type: ignore[attr-defined]
    page = context.new_page()
    page.goto(server.sign_in_link(place.owner, "--tailnet", place.name))
    page.goto(f"{server.url}/devices/{place.node('plain')['nodeId']}")
    exit_switch(page, "plain").check()
    page.locator("#offers").get_by_role("button", name="Save").click()
    expect(exit_switch(page, "plain")).to_be_checked()
    context.close()
