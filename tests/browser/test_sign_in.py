"""Signing in by hand: through "Google" (a provider of our own), by passkey, and with a second step."""

from __future__ import annotations

import base64
import hmac
import struct
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser import chromium
from tests.browser.conftest import ACTION_MS, Complaints
from tests.browser.server import Server, free_port
from tests.openid import CLIENT_ID, CLIENT_SECRET, Provider, running_provider

pytestmark = pytest.mark.browser

AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running_provider() as running:
        yield running


@pytest.fixture(scope="module")
def server(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Known by a name, because browsers make no passkeys for bare addresses."""
    data, port = tmp_path_factory.mktemp("server") / "data", free_port()
    extra = {
        "TRENZA_URL": f"http://localhost:{port}",
        "TRENZA_GOOGLE_CLIENT_ID": CLIENT_ID,
        "TRENZA_GOOGLE_CLIENT_SECRET": CLIENT_SECRET,
        "TRENZA_GOOGLE_ISSUER": provider.issuer,
    }
    running = Server(data, extra, port)
    running.prepare()
    running.start()
    yield running
    running.stop()


class Reader:
    """One person at one browser, with an authenticator built in."""

    def __init__(self, chrome: Browser, server: Server, complaints: Complaints, **reader: bool) -> None:
        self.context: BrowserContext = chrome.new_context(**chromium.page_options(**reader))
        self.context.set_default_timeout(ACTION_MS)
        self.page: Page = self.context.new_page()
        complaints.watch(self.page)
        self.url = server.url
        devtools = self.context.new_cdp_session(self.page)
        devtools.send("WebAuthn.enable")
        devtools.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})

    def go(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def follow(self, name: str) -> None:
        self.page.get_by_role("link", name=name, exact=True).click()

    def at(self, path: str) -> None:
        self.page.wait_for_url(f"{self.url}{path}")

    def sign_out(self) -> None:
        self.page.locator("[popovertarget=user-menu]").click()
        self.press("Sign out")
        self.at("/sign-in")


@pytest.fixture
def readers(chrome: Browser, server: Server, complaints: Complaints) -> Iterator[list[Reader]]:
    made: list[Reader] = []
    yield made
    for reader in made:
        reader.context.close()


def code_of(secret: str, now: float) -> str:
    """What an authenticator app shows (RFC 6238)."""
    mac = hmac.digest(base64.b32decode(secret), struct.pack(">Q", int(now) // 30), "sha1")
    at = mac[-1] & 15
    return f"{(int.from_bytes(mac[at : at + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"


def test_from_google_to_a_passkey_and_an_app(
    chrome: Browser, server: Server, provider: Provider, complaints: Complaints, readers: list[Reader]
) -> None:
    ana = Reader(chrome, server, complaints)
    readers.append(ana)
    page = ana.go("/sign-in?next=/keys")
    ana.press("Continue with Google")
    ana.at("/keys")

    page.locator("[popovertarget=user-menu]").click()
    ana.follow("Account and security")
    expect(page.locator("#ways")).to_contain_text("This is you")
    ana.follow("Add a passkey")
    page.get_by_label("Name").fill("This laptop")
    ana.press("Add a passkey")
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    codes = page.locator("#codes li").all_inner_texts()
    assert len(codes) == 10
    ana.follow("I have kept them")
    expect(page.locator("#passkeys")).to_contain_text("This laptop")
    ana.sign_out()

    ana.press("Sign in with a passkey")
    ana.at("/")

    ana.go("/account")
    ana.follow("Set up")
    expect(page.get_by_role("heading", name="Confirm that it is you")).to_be_visible()
    ana.follow("Use a passkey")
    ana.press("Use a passkey")
    page.get_by_label("Code of your app").fill("000000")
    ana.press("Turn on")
    expect(page.get_by_text("Incorrect code.")).to_be_visible()
    secret = page.locator(".totp .mono").inner_text()
    page.get_by_label("Code of your app").fill(code_of(secret, time.time()))
    ana.press("Turn on")
    expect(page.locator("#second")).to_contain_text("Recovery codes")
    ana.sign_out()

    ana.press("Continue with Google")
    expect(page.get_by_role("heading", name="One more step")).to_be_visible()
    ana.go("/devices")
    ana.at("/sign-in?next=%2Fdevices")  # half a sign-in is none
    ana.press("Continue with Google")
    page.get_by_label("Code of your app, or a recovery code").fill(codes[0])
    ana.press("Sign in")
    ana.at("/devices")

    ana.go("/account")
    expect(page.locator("#second")).to_contain_text("9 left")


def test_in_spanish_on_a_phone_and_out_from_afar(
    chrome: Browser, server: Server, provider: Provider, complaints: Complaints, readers: list[Reader]
) -> None:
    provider.person |= {"sub": "2002", "email": "eva@example.com", "name": "Eva"}
    phone = Reader(chrome, server, complaints, phone=True, spanish=True)
    desk = Reader(chrome, server, complaints)
    readers += [phone, desk]
    for reader, button in ((phone, "Continuar con Google"), (desk, "Continue with Google")):
        reader.go("/sign-in")
        reader.press(button)
        reader.at("/")
    page = phone.go("/account")
    expect(page.get_by_role("heading", name="Cuenta y seguridad")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    phone.press("Cerrar las demás sesiones")
    expect(page.get_by_text("este navegador")).to_be_visible()
    expect(page.locator("#sessions li")).to_have_count(1)
    expect(desk.page.get_by_role("button", name="Continue with Google")).to_be_visible()
    desk.go("/devices")
    desk.at("/sign-in?next=%2Fdevices")
    phone.go("/devices")
    phone.at("/devices")


def test_what_the_provider_does_not_vouch_for_is_told(
    chrome: Browser, server: Server, provider: Provider, complaints: Complaints, readers: list[Reader]
) -> None:
    provider.person |= {"sub": "3003", "email_verified": False}
    stranger = Reader(chrome, server, complaints)
    readers.append(stranger)
    page = stranger.go("/sign-in")
    stranger.press("Continue with Google")
    expect(page.get_by_role("alert")).to_contain_text("has not verified your e-mail address")
    expect(page.locator(".toast-item")).to_have_count(0)


def test_a_person_of_this_server_adds_google(
    chrome: Browser, server: Server, provider: Provider, complaints: Complaints, readers: list[Reader]
) -> None:
    provider.person |= {"sub": "4004", "email": "owner@elsewhere.example", "email_verified": True}
    owner = Reader(chrome, server, complaints)
    readers.append(owner)
    page = owner.page
    page.goto(server.sign_in_link())
    owner.go("/account")
    owner.press("Add Google")
    owner.at("/account")
    expect(page.locator("#ways")).to_contain_text("owner@elsewhere.example")
    owner.sign_out()
    owner.press("Continue with Google")
    owner.at("/")
    owner.go("/account")
    expect(page.locator(".who")).to_contain_text("owner@localhost")
    owner.follow("Remove…")
    owner.press("Remove")
    expect(page.get_by_role("button", name="Add Google")).to_be_visible()
