"""Every page in both languages and themes, on both kinds of screen: nothing overflows, overlaps, is faint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser import screenshots
from tests.browser.conftest import Complaints
from tests.browser.demo import Demo, furnish
from tests.browser.server import Server, running_server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # every page, one after another

LONG = "a-name-as-long-as-a-label-may-be-" + "x" * 30
LOOKS = 20  # after another width, at most
WIDTHS = (320, 390, 600, 768, 1024, 1280, 1366, 1440, 1920)

# Elements that one clicks, and that must not lie on one another.
OVERLAPS = """
() => {
  const shown = [...document.querySelectorAll("a[href], button, input, select, summary")].filter((one) => {
    const box = one.getBoundingClientRect();
    const style = getComputedStyle(one);
    return box.width > 1 && box.height > 1 && style.visibility === "visible" && one.checkVisibility()
      && !one.closest("[inert], .skip, .scrim")
      && (!document.querySelector("dialog[open]") || one.closest("dialog[open]"))
      && (!document.querySelector(".menu:popover-open") || one.closest(".menu:popover-open"));
  });
  const fixed = (one) => one.closest(".top, .side, .menu, .bulk-bar") !== null;
  const found = [];
  for (let i = 0; i < shown.length; i++) {
    for (let j = i + 1; j < shown.length; j++) {
      const [a, b] = [shown[i], shown[j]];
      if (a.contains(b) || b.contains(a) || fixed(a) !== fixed(b)) continue;
      const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
      const x = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const y = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (x > 1 && y > 1) found.push(`${a.outerHTML.slice(0, 80)} | ${b.outerHTML.slice(0, 80)}`);
    }
  }
  return found;
}
"""
# Boxes whose content is wider than they are, but for those that scroll or cut off on purpose.
OVERFLOWS = """
() => {
  const found = [];
  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) found.push(`page ${width}`);
  const root = document.querySelector("dialog[open]") ?? document.body;
  for (const one of root.querySelectorAll("*")) {
    const box = one.getBoundingClientRect();
    if (!box.width || one.closest("svg, .side, .tabs, .visually-hidden, .skip, .thing-sub, thead")) continue;
    if (box.right > innerWidth + 1) found.push(`${Math.round(box.right)}: ${one.outerHTML.slice(0, 100)}`);
  }
  for (const list of root.querySelectorAll("table.list")) {
    if (list.scrollWidth > list.parentElement.clientWidth) found.push(`table ${list.scrollWidth}`);
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Demo]]:
    """A server of its own with a tailnet that has something of everything, long names too."""
    with running_server(tmp_path_factory.mktemp("furnished") / "data", **screenshots.GOOGLE) as server:
        demo = furnish(server, extra=[LONG])
        yield server, demo
        demo.close()


@pytest.fixture(scope="module")
def axe() -> Axe:
    return Axe()


def violations(axe: Axe, page: Page) -> list[str]:
    """Whatever axe finds, of any weight, best practices included."""
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in axe.run(page).response["violations"]
    ]


def look(page: Page, axe: Axe | None) -> dict[str, list[str]]:
    """What is wrong with the page as it stands."""
    found: dict[str, list[str]] = {"overflow": page.evaluate(OVERFLOWS), "overlap": page.evaluate(OVERLAPS)}
    if axe is not None:
        found["axe"] = violations(axe, page)
    return {what: where for what, where in found.items() if where}


# axe looks at both themes, once on each kind of screen; words of two languages are measured everywhere.
@pytest.mark.parametrize(
    ("variant", "with_axe"),
    [
        ("desktop-light", True),
        ("phone-dark", True),
        pytest.param("desktop-es", False, marks=pytest.mark.long),
        pytest.param("phone-es", False, marks=pytest.mark.long),
    ],
)
def test_every_page_looks_right(
    furnished: tuple[Server, Demo],
    chrome: Any,
    axe: Axe,
    variant: str,
    with_axe: bool,
    complaints: Complaints,
) -> None:
    server, demo = furnished
    wrong = {}
    for name, page in screenshots.every_page(chrome, server, demo, variant, watch=complaints.watch):
        if found := look(page, axe if with_axe else None):
            wrong[name] = found
    assert wrong == {}


# What the pages of the widths need to be there first.
MAKERS = ("access-history", "token-made", "client-made", "relay-made", "dns", "webhook-made", "invite-made")


def addresses(page: Page, server: Server, demo: Demo) -> Iterator[str]:
    """Every address of the panel that shows a page, dialogs too, filled in with what the tailnet has."""
    device = screenshots.device_path(server, LONG)
    yield demo.ssh_check()  # soon: it works for half an hour
    yield from ("/", "/approvals", "/routes", "/routes?show=exit-nodes", "/my-devices", "/access", "/devices")
    yield from (f"/access?show={tab}" for tab in ("tests", "preview", "history"))
    yield from ("/access/versions/1", "/access/versions/1/restore", f"{device}/access")
    yield from (
        f"/devices/add?os={system}" for system in ("linux", "macos", "windows", "ios", "android", "server")
    )
    yield "/devices/clean-up?days=1&tagged=1"
    yield device
    yield from (f"{device}/{dialog}" for dialog in ("notes", "tags", "rename", "expire", "delete"))
    yield f"{screenshots.device_path(server, 'raspberry-pi')}/reject"
    yield from ("/users", "/users/invite", "/users/invitations", "/keys", "/keys/new", "/keys?show=tokens")
    yield from (
        "/keys/tokens/new",
        "/keys?show=clients",
        "/keys/clients/new",
        "/dns",
        "/dns/magic",
        "/relays",
    )
    yield from (f"/dns/{kind}/add" for kind in ("nameserver", "search", "record"))
    yield from ("/relays/add", "/map", "/map?view=table", "/logs", "/settings", "/settings/rename")
    yield from ("/api", "/api/calls")
    yield from ("/settings/transfer", "/settings/delete", "/settings/webhooks", "/settings/webhooks/add")
    yield "/settings/contacts/security"
    yield from ("/tailnets", "/tailnets/new", "/account", "/accounts/2fa/totp/activate/")
    yield from ("/accounts/2fa/webauthn/add/", "/accounts/2fa/recovery-codes/generate/", "/search?q=a")
    yield from ("/shortcuts", demo.pending_url.removeprefix(server.url), "/no-such-page")
    # The rest by the links of their lists: dialogs about one of them, and its own page.
    for listing, links in (
        ("/users", ".thing-name, #people-list .menu a"),
        ("/users/invitations", "td.act a"),
        ("/keys", "td.act a"),
        ("/keys?show=tokens", "td.act a"),
        ("/keys?show=clients", "td.act a"),
        ("/relays", "#relays .menu a"),
        ("/dns", ".plain-list a"),
        ("/settings/webhooks", ".hooks .thing-name"),
        ("/account", "a[href$='/end']"),
    ):
        page.goto(server.url + listing)
        found = page.locator(f"main :is({links})").evaluate_all(
            "all => all.map((one) => one.getAttribute('href'))"
        )
        kinds = {re.sub(r"(?<=/)([0-9]+|[A-Za-z0-9]{11,})(?=/|$)|\?.*", "", path): path for path in found}
        yield from kinds.values()
        if listing == "/settings/webhooks":
            yield from (f"{found[0]}/{dialog}" for dialog in ("edit", "rotate", "delete"))


def settled(page: Page) -> dict[str, list[str]]:
    """What is wrong with a page that has just got another width: pictures that scripts draw follow later."""
    for _ in range(LOOKS):
        if not (found := look(page, None)):
            break
        page.wait_for_timeout(screenshots.SETTLE_MS)
    return found


def misfits(
    chrome: Any,
    server: Server,
    demo: Demo,
    axe: Axe,
    spanish: bool,
    watch: screenshots.Step = lambda page: None,
) -> Iterator[str]:
    """What is wrong at which address and width; axe looks in both themes."""
    for _ in screenshots.every_page(chrome, server, demo, "desktop-light", MAKERS):
        pass
    context, page = screenshots.signed_in(chrome, server, spanish=spanish)
    watch(page)
    for path in list(addresses(page, server, demo)):
        demo.keep_up()
        page.goto(server.url + path)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            if found := settled(page):
                yield f"{path} {width}: {found}"
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            if found := violations(axe, page):
                yield f"{path} {theme}: {found}"
    context.close()


@pytest.mark.long
@pytest.mark.timeout(3600)  # every address at every width
@pytest.mark.parametrize("spanish", [False, True])
def test_pages_fit_every_width(
    furnished: tuple[Server, Demo], chrome: Any, axe: Axe, complaints: Complaints, spanish: bool
) -> None:
    server, demo = furnished
    assert list(misfits(chrome, server, demo, axe, spanish, complaints.watch)) == []


def test_no_page_depends_on_inline_code(furnished: tuple[Server, Demo], chrome: Any) -> None:
    server, _ = furnished
    context, page = screenshots.signed_in(chrome, server)
    page.goto(server.url + "/devices")
    blocked = page.evaluate("""
      () => new Promise((resolve) => {
        document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        setTimeout(() => resolve("ran"), 2000);
      })
    """)
    assert blocked == "script-src-elem"
    assert page.evaluate("window.ran") is None
    context.close()


def test_pictures_are_taken(furnished: tuple[Server, Demo], chrome: Any, tmp_path: Path) -> None:
    server, demo = furnished
    screenshots.take_from(chrome, server, demo, tmp_path, ["devices"], ["phone-es"])
    assert [path.name for path in tmp_path.iterdir()] == ["devices-phone-es.png"]
