"""``python -m tests.browser.screenshots OUTDIR``: every page, desktop and phone, light and dark."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.chromium import browser, executable, page_options
from tests.browser.demo import SSH, Demo, furnish
from tests.browser.server import Server, running_server

Step = Callable[[Page], None]
VARIANTS = {
    "desktop-light": {},
    "desktop-dark": {"dark": True},
    "phone-light": {"phone": True},
    "phone-dark": {"phone": True, "dark": True},
    "desktop-es": {"spanish": True},
    "phone-es": {"phone": True, "spanish": True},
}


def _nothing(page: Page) -> None:
    """The page as it opens."""


def _open_sheet(selector: str) -> Step:
    def step(page: Page) -> None:
        page.locator(selector).first.click()
        page.wait_for_selector("#sheet[open] h2")

    return step


def _row_menu(page: Page) -> None:
    page.locator("#device-list tbody tr:not(.is-pending) .act [popovertarget]").first.click()
    page.wait_for_selector("#device-list .menu:popover-open")


def _row_sheet(action: str) -> Step:
    def step(page: Page) -> None:
        _row_menu(page)
        page.locator(f"#device-list .menu:popover-open a[href$='/{action}']").click()
        page.wait_for_selector("#sheet[open] h2")

    return step


def _choose_some(page: Page) -> None:
    for box in page.locator("#device-list .pick-one").all()[:3]:
        box.check()


def _ask_in_bulk(page: Page) -> None:
    _choose_some(page)
    page.locator("#bulk button[value=delete]").click()
    page.wait_for_selector("#sheet[open] h2")


def _open_filters(page: Page) -> None:
    page.locator(".more-filters summary").click()


def _search(page: Page) -> None:
    page.locator(".top-search").click()
    page.fill("#palette-input", "ma")
    page.wait_for_selector("#palette-results[data-query=ma]")


def _choose_scopes(page: Page) -> None:
    _open_sheet("main a[href='/keys/tokens/new']")(page)
    page.check("#sheet input[name=access][value=some]")


def _make_token(page: Page) -> None:
    _choose_scopes(page)
    page.fill("#sheet #id_description", "backups")
    for area in ("devices:core", "dns", "users", "auth_keys"):
        page.select_option(f"#sheet select[name='{area}']", f"{area}:read")
    page.locator("#sheet button[type=submit]").click()
    page.wait_for_selector("#secret")


def _make_client(page: Page) -> None:
    _open_sheet("main a[href='/keys/clients/new']")(page)
    page.fill("#sheet #id_description", "deployments")
    page.select_option("#sheet select[name='devices:core']", "devices:core:read")
    page.locator("#sheet button[type=submit]").click()
    page.wait_for_selector("#secret")


def _make_webhook(page: Page) -> None:
    _open_sheet("#add-webhook")(page)
    page.fill("#sheet #id_url", "https://hooks.example.com/trenza")
    page.locator("#sheet button[type=submit]").click()
    page.wait_for_selector("#secret")


def _set_contact(page: Page) -> None:
    _open_sheet("#contact-security a")(page)
    page.fill("#sheet #id_email", "security-and-network-operations@harbour.example.com")
    page.locator("#sheet button[type=submit]").click()
    page.wait_for_selector("#contact-security .state")


def _a_webhook(page: Page) -> None:
    page.locator(".hooks .thing-name").first.click()
    page.wait_for_selector("#webhook")


def _make_key(page: Page) -> None:
    page.locator("main a[href='/keys/new']").first.click()
    page.fill("#sheet #id_description", "web servers")
    page.locator("#sheet button[type=submit]").click()
    page.wait_for_selector("#secret")


def _open_call(page: Page) -> None:
    page.locator(".calls summary").first.click()


def _drawn_reference(page: Page) -> None:
    page.wait_for_selector("#reference[data-drawn] .opblock-tag")


def _drawn_map(page: Page) -> None:
    page.wait_for_selector("#map[data-drawn]")


def _pick_on_map(page: Page) -> None:
    _drawn_map(page)
    page.locator("#map").press("ArrowDown")
    page.wait_for_selector(".picked")


def _make_relay(page: Page) -> None:
    page.locator("#add-relay").click()
    for name, value in (("name", "Madrid"), ("host", "relay.example.com")):
        page.fill(f"#sheet #id_{name}", value)
    page.locator("#sheet button[type=submit]").click()
    page.wait_for_selector("#relay-token")


def _own_relay(page: Page) -> None:
    page.locator("[id^=open-relay-]").first.click()


def _pick_all(page: Page) -> None:
    for box in page.locator("#queue tbody input[name=item]").all():
        box.check()


def _reject_all(page: Page) -> None:
    _pick_all(page)
    page.get_by_role("group").locator("[formaction='/approvals/reject']").click()
    page.wait_for_selector("#sheet[open] h2")


def invite(page: Page, email: str, role: str = "member") -> str:
    """Invite somebody from any page of the users; returns the link that is shown once."""
    page.locator("#invite").click()
    page.fill("#sheet #id_email", email)
    page.check(f"#sheet input[value={role}]")
    page.locator("#sheet button[type=submit]").click()
    return page.locator("#invite-link").inner_text()


_invited = count(1)


def _invite(page: Page) -> None:
    invite(page, f"colleague-{next(_invited)}@example.com")


def _open_invitation(page: Page) -> None:
    path = urlsplit(invite(page, f"colleague-{next(_invited)}@example.com", "auditor")).path
    page.goto(urlunsplit((*urlsplit(page.url)[:2], path, "", "")))


def _tick_people(page: Page) -> None:
    for box in page.locator("#people-list .pick-one").all():
        box.check()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")  # the bar lies on no row there


def _ask_about_people(page: Page) -> None:
    _tick_people(page)
    page.locator("#bulk button[value=delete]").click()
    page.wait_for_selector("#sheet[open] h2")


def _a_person(page: Page) -> None:
    page.locator("#people-list .thing-name", has_text="maria").click()
    page.wait_for_selector("#person")


def _a_persons_role(page: Page) -> None:
    _a_person(page)
    page.goto(f"{page.url}/role")


def _tailnet_menu(page: Page) -> None:
    page.locator("[popovertarget=tailnet-menu]").click()


def _choose_exit_node(page: Page) -> None:
    page.locator("#exit-node").scroll_into_view_if_needed()


DNS_EXAMPLES = (
    ("nameserver", {"address": "9.9.9.9"}),
    ("nameserver", {"address": "https://dns.example.com/dns-query"}),
    ("nameserver", {"address": "10.20.0.53", "domain": "corp.example.com"}),
    ("search", {"domain": "corp.example.com"}),
    ("record", {"name": "printer", "value": "10.20.4.17"}),
    ("record", {"name": "a-service-with-a-rather-long-name.corp.example.com", "value": "fd7a:115c:a1e0::7"}),
)


def add_to_dns(page: Page, kind: str, values: Mapping[str, str]) -> None:
    """Fill in and send one of the DNS page's dialogs."""
    page.locator(f"main a[href='/dns/{kind}/add']").click()
    for name, value in values.items():
        page.fill(f"#sheet #id_{name}", value)
    page.locator("#sheet button[type=submit]").click()
    page.wait_for_selector("#sheet:not([open])", state="attached")


def _fill_dns(page: Page) -> None:
    if page.get_by_text("printer.").count():
        return
    for kind, values in DNS_EXAMPLES:
        add_to_dns(page, kind, values)


POLICY = """\
{
	"groups": {"group:eng": ["maria@example.com", "owner@localhost"]},
	"tagOwners": {"tag:server": ["group:eng"], "tag:prod": ["group:eng"]},
	"acls": [
		// Engineers maintain the servers.
		{"action": "accept", "src": ["group:eng"], "proto": "tcp", "dst": ["tag:server:22", "tag:prod:443"]},
		// Everybody reaches their own devices, and the office.
		{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*", "10.20.0.0/16:*"]},
	],
	"grants": [{"src": ["tag:server"], "dst": ["tag:prod"], "ip": ["tcp:5432", "icmp:*"]}],
	"tests": [{"src": "owner@localhost", "accept": ["tag:server:22"], "deny": ["tag:server:23"]}],
"""
POLICY += SSH + "}\n"
# As a person pastes: the editor takes it from the event, as it does from the clipboard.
PASTE = """
(text) => {
  const data = new DataTransfer();
  data.setData("text/plain", text);
  const paste = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
  document.querySelector(".cm-content").dispatchEvent(paste);
}
"""


def write_policy(page: Page, text: str) -> None:
    """Put a text in place of the editor's, and wait until it has been looked at."""
    page.wait_for_selector("#access[data-ready]")
    page.locator(".cm-content").focus()
    page.keyboard.press("Control+a")
    page.evaluate("document.getElementById('access-side').dataset.old = ''")
    page.evaluate(PASTE, text)
    page.wait_for_selector("#access-side:not([data-old])")


def add_rule(page: Page, section: str, **values: str) -> None:
    """Fill in and send the dialog of one more rule."""
    page.locator("#add-rule").click()
    page.wait_for_selector("#sheet[open] h2")
    if page.locator(f"#sheet input[name=section][value={section}]").count() == 0:
        page.locator(f"#sheet button[name=change][value={section}]").click()
        page.wait_for_selector(f"#sheet input[name=section][value={section}]", state="attached")
    for name, value in values.items():
        page.fill(f"#sheet #id_{name}", value)
    page.locator("#apply-rule").click()
    page.wait_for_selector("#sheet:not([open])", state="attached")


def _draft(page: Page) -> None:
    write_policy(page, POLICY)


def _show(tab: str) -> Step:
    def step(page: Page) -> None:
        _draft(page)
        page.locator(f"#tab-{tab}").click()
        page.wait_for_selector(f"#access-side[data-show={tab}]")

    return step


def _preview(page: Page) -> None:
    write_policy(page, POLICY.replace("tag:server:22", "tag:server:22,80"))  # POLICY may be in force by now
    page.locator("#tab-preview").click()
    page.wait_for_selector("#access-side[data-show=preview] .preview-list")


def _change_a_rule(page: Page) -> None:
    _draft(page)
    page.locator("#open-acls-1").scroll_into_view_if_needed()
    page.wait_for_timeout(SETTLE_MS)  # scrolling closes menus
    page.locator("#open-acls-1").click()
    page.locator("button[name=at][value='acls/0']").click()
    page.wait_for_selector("#sheet[open] h2")


def _break_it(page: Page) -> None:
    write_policy(page, POLICY.replace('"acls": [', '"acls": [,'))
    page.wait_for_selector(".cm-lint-marker-error")


def _save_it(page: Page) -> None:
    _draft(page)
    if page.locator("#save-bar").is_visible():  # else it is in force already
        page.fill("#save-bar input[name=comment]", "Servers for engineers alone")
        page.locator("#save-policy").click()
        page.wait_for_selector("#save-bar", state="hidden")
    page.locator("#tab-history").click()
    page.wait_for_selector(".version-list")


def _a_version(page: Page) -> None:
    page.locator(".version-list .thing-name").first.click()
    page.wait_for_selector("#version-diff[data-ready]")


def _rules_of_device(page: Page) -> None:
    page.wait_for_selector("#device-access[data-live]")
    page.locator("#device-access").scroll_into_view_if_needed()


def _drawn_rules(page: Page) -> None:
    page.wait_for_selector("#map[data-allowed]:not([data-allowed='0'])")


def _open_details(page: Page) -> None:
    for details in page.locator("#log summary").all()[:2]:
        details.click()


def _sign_in_again(server: Server) -> Step:
    def step(page: Page) -> None:
        again = page.locator("button[name=answer][value=again]")
        if again.count():  # else they have, for another session
            again.click()
            page.wait_for_url("**/sign-in?*")
            page.goto(server.sign_in_link())
        page.wait_for_selector("button[name=answer][value=allow]")

    return step


def _let_in(server: Server) -> Step:
    def step(page: Page) -> None:
        _sign_in_again(server)(page)
        _answer("allow")(page)

    return step


def _answer(answer: str) -> Step:
    def step(page: Page) -> None:
        page.locator(f"button[name=answer][value={answer}]").click()
        page.wait_for_selector("a[href='/devices']")

    return step


def _drawer(page: Page) -> None:
    toggle = page.locator(".menu-button")
    if toggle.is_visible():
        toggle.click()


def _user_menu(page: Page) -> None:
    page.locator("[popovertarget=user-menu]").click()


def pages(server: Server, demo: Demo) -> dict[str, tuple[str, Step]]:
    """Every page by the name of its picture: its path, and what to do on it first."""
    device = device_path(server)
    return {
        "overview": ("/", _nothing),
        "approvals": ("/approvals", _nothing),
        "approvals-picked": ("/approvals", _pick_all),
        "approvals-reject": ("/approvals", _reject_all),
        "approvals-none": ("/approvals?kind=person", _nothing),
        "routes": ("/routes", _nothing),
        "exit-nodes": ("/routes?show=exit-nodes", _nothing),
        "my-devices": ("/my-devices", _nothing),
        "access": ("/access", _draft),
        "access-change": ("/access", _change_a_rule),
        "access-wrong": ("/access", _break_it),
        "access-tests": ("/access", _show("tests")),
        "access-preview": ("/access", _preview),
        "access-history": ("/access", _save_it),
        "access-version": ("/access?show=history", _a_version),
        "access-restore": ("/access/versions/1/restore", _nothing),
        "device-access": (device, _rules_of_device),
        "map-rules": ("/map?rules=1", _drawn_rules),
        "devices": ("/devices", _nothing),
        "devices-pending": ("/devices?state=pending", _nothing),
        "devices-none": ("/devices?q=nothing-like-this", _nothing),
        "devices-menu": ("/devices", _row_menu),
        "devices-rename": ("/devices", _row_sheet("rename")),
        "devices-delete": ("/devices", _row_sheet("delete")),
        "devices-chosen": ("/devices", _choose_some),
        "devices-bulk": ("/devices", _ask_in_bulk),
        "devices-filters": ("/devices", _open_filters),
        "clean-up": ("/devices/clean-up?days=1&tagged=1", _nothing),
        "search": ("/devices", _search),
        "shortcuts": ("/shortcuts", _nothing),
        "device-notes": (f"{device}/notes", _nothing),
        "device-tags": (f"{device_path(server, 'workstation')}/tags", _nothing),
        "device": (device, _nothing),
        "device-exit": (device_path(server, "borealis"), _choose_exit_node),
        "device-router": (device_path(server, "calypso"), _nothing),
        "add-device": ("/devices", _open_sheet(".top a[href='/devices/add']")),
        "add-device-page": ("/devices/add?os=ios", _nothing),
        "keys": ("/keys", _nothing),
        "key-new": ("/keys", _open_sheet("main a[href='/keys/new']")),
        "key-made": ("/keys", _make_key),
        "keys-tokens-none": ("/keys?show=tokens", _nothing),
        "token-new": ("/keys?show=tokens", _choose_scopes),
        "token-made": ("/keys?show=tokens", _make_token),
        "keys-tokens": ("/keys?show=tokens", _nothing),
        "keys-clients-none": ("/keys?show=clients", _nothing),
        "client-new": ("/keys?show=clients", _open_sheet("main a[href='/keys/clients/new']")),
        "client-made": ("/keys?show=clients", _make_client),
        "keys-clients": ("/keys?show=clients", _nothing),
        "api": ("/api", _nothing),
        "api-calls": ("/api/calls?q=webhook", _open_call),
        "api-reference": ("/api/reference", _drawn_reference),
        "map": ("/map", _drawn_map),
        "map-device": ("/map", _pick_on_map),
        "map-table": ("/map?view=table", _nothing),
        "relays": ("/relays", _nothing),
        "relay-add": ("/relays", _open_sheet("#add-relay")),
        "relay-made": ("/relays", _make_relay),
        "relays-own": ("/relays", _own_relay),
        "dns-empty": ("/dns", _nothing),
        "dns": ("/dns", _fill_dns),
        "dns-nameserver": ("/dns", _open_sheet("main a[href='/dns/nameserver/add']")),
        "dns-record": ("/dns", _open_sheet("main a[href='/dns/record/add']")),
        "dns-magic-off": ("/dns", _open_sheet("#magic-off")),
        "logs": ("/logs", _open_details),
        "webhooks": ("/settings/webhooks", _nothing),
        "webhook-add": ("/settings/webhooks", _open_sheet("#add-webhook")),
        "webhook-made": ("/settings/webhooks", _make_webhook),
        "webhook": ("/settings/webhooks", _a_webhook),
        "logs-none": ("/logs?q=nothing-like-this", _nothing),
        "users": ("/users", _nothing),
        "users-chosen": ("/users", _tick_people),
        "users-remove": ("/users", _ask_about_people),
        "users-none": ("/users?q=nobody-like-this", _nothing),
        "user": ("/users", _a_person),
        "user-role": ("/users", _a_persons_role),
        "invite": ("/users", _open_sheet("#invite")),
        "invite-made": ("/users", _invite),
        "invitations": ("/users/invitations", _nothing),
        "invitation": ("/users/invitations", _open_invitation),
        "settings": ("/settings", _nothing),
        "settings-rename": ("/settings", _open_sheet("#rename-tailnet")),
        "settings-contact": ("/settings", _open_sheet("#contact-security a")),
        "settings-contact-set": ("/settings", _set_contact),
        "settings-transfer": ("/settings", _open_sheet("#transfer")),
        "settings-delete": ("/settings", _open_sheet("#delete-tailnet")),
        "tailnets": ("/tailnets", _nothing),
        "tailnet-new": ("/tailnets", _open_sheet("#new-tailnet")),
        "tailnet-menu": ("/devices", _tailnet_menu),
        "menu": ("/devices", _drawer),
        "account-menu": ("/devices", _user_menu),
        "account": ("/account", _nothing),
        "account-passkey": ("/accounts/2fa/webauthn/add/", _nothing),
        "account-app": ("/accounts/2fa/totp/activate/", _nothing),
        "register": (demo.pending_url.removeprefix(server.url), _nothing),
        "register-gone": ("/register/old", _nothing),
        "ssh-check": (demo.ssh_check(), _nothing),
        "ssh-check-signed-in": (demo.ssh_check(), _sign_in_again(server)),
        "ssh-check-let-in": (demo.ssh_check(), _let_in(server)),
        "ssh-check-refused": (demo.ssh_check(), _answer("refuse")),
        "ssh-check-gone": ("/ssh-check/used", _nothing),
        "not-found": ("/devices/nothing", _nothing),
    }


SIGNED_OUT = {
    "sign-in": "/sign-in",
    "link-gone": "/sign-in/link/used",
    "invitation-gone": "/invite/used",
}
SETTLE_MS = 150
SHOWN_URL = "http://vpn.example.com"
GOOGLE = {"TRENZA_GOOGLE_CLIENT_ID": "example", "TRENZA_GOOGLE_CLIENT_SECRET": "example"}


def device_path(server: Server, hostname: str = "") -> str:
    """The path of one device's page, or of the first one's."""
    found = server.command("listnodes", "default", "--json")
    return "/devices/" + next(one["nodeId"] for one in found if hostname in ("", one["hostname"]))


def signed_in(running: Browser, server: Server, **reader: bool) -> tuple[BrowserContext, Page]:
    """A reader of one kind, signed in as the owner."""
    context = running.new_context(**page_options(**reader))
    page = context.new_page()
    page.goto(server.sign_in_link())
    return context, page


def every_page(
    running: Browser,
    server: Server,
    demo: Demo,
    variant: str,
    wanted: Sequence[str] = (),
    watch: Step = _nothing,
) -> Iterator[tuple[str, Page]]:
    """Each page by name, opened for one kind of reader and ready to be looked at."""
    stranger = running.new_context(**page_options(**VARIANTS[variant]))
    context, first = signed_in(running, server, **VARIANTS[variant])
    first.close()
    rest = pages(server, demo)
    tabs = {opener: opener.new_page() for opener in (stranger, context)}
    for page in tabs.values():
        watch(page)
    plans = [(stranger, name, path, _nothing) for name, path in SIGNED_OUT.items()]
    plans += [(context, name, path, step) for name, (path, step) in rest.items()]
    for opener, name, path, step in plans:
        if wanted and name not in wanted:
            continue
        page = tabs[opener]
        demo.keep_up()
        page.goto(server.url + path)
        step(page)
        page.wait_for_timeout(SETTLE_MS)
        yield name, page
    context.close()
    stranger.close()


def take_from(
    running: Browser, server: Server, demo: Demo, out: Path, wanted: Sequence[str], variants: Sequence[str]
) -> None:
    """Pictures of a server that runs already."""
    for variant in variants:
        for name, page in every_page(running, server, demo, variant, wanted):
            whole = "phone" in variant and not page.locator("#sheet[open], .nav-open").count()
            page.screenshot(path=str(out / f"{name}-{variant}.png"), full_page=whole)


def take(out: Path, wanted: Sequence[str], variants: Sequence[str]) -> None:
    """Start a furnished server and take the pictures."""
    out.mkdir(parents=True, exist_ok=True)
    known_as = urlsplit(SHOWN_URL).netloc
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder) / "data", TRENZA_URL=SHOWN_URL, **GOOGLE) as server,
    ):
        demo = furnish(server)
        with browser(f"--host-resolver-rules=MAP {known_as} 127.0.0.1:{server.port}") as running:
            take_from(running, server, demo, out, wanted, variants)
        demo.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--page", action="append", default=[], help="only this page (may be repeated)")
    parser.add_argument("--variant", action="append", default=[], choices=sorted(VARIANTS))
    options = parser.parse_args()
    if executable() is None:
        print("no chromium here: apt install chromium", file=sys.stderr)
        return 1
    take(options.out, options.page, options.variant or list(VARIANTS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
