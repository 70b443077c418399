"""Every page in both languages and themes, on both kinds of screen: nothing overflows, overlaps, is faint."""

from __future__ import annotations

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
WIDTHS = (320, 390, 600, 768, 1024, 1280, 1366, 1440, 1920)

# Elements that one clicks, and that must not lie on one another.
OVERLAPS = """
() => {
  const shown = [...document.querySelectorAll("a[href], button, input, select, summary")].filter((one) => {
    const box = one.getBoundingClientRect();
    const style = getComputedStyle(one);
    return box.width > 1 && box.height > 1 && style.visibility === "visible"
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


@pytest.mark.long
@pytest.mark.parametrize("spanish", [False, True])
def test_pages_fit_every_width(
    furnished: tuple[Server, Demo], chrome: Any, complaints: Complaints, spanish: bool
) -> None:
    server, _ = furnished
    context, page = screenshots.signed_in(chrome, server, spanish=spanish)
    complaints.watch(page)
    device = screenshots.device_path(server, LONG)
    wrong = {}
    for path in (
        "/",
        "/approvals",
        "/routes",
        "/routes?show=exit-nodes",
        "/my-devices",
        "/access",
        "/devices",
        device,
        "/keys",
        "/relays",
        "/dns",
        "/account",
        "/accounts/2fa/totp/activate/",
        "/devices/add?os=ios",
        f"{device}/delete",
        f"{device}/rename",
        f"{device}/notes",
        f"{device}/tags",
        "/devices/clean-up?days=1&tagged=1",
        "/search?q=a",
        "/shortcuts",
    ):
        page.goto(server.url + path)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            if found := look(page, None):
                wrong[f"{path} {width}"] = found
    context.close()
    assert wrong == {}


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
