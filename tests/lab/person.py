"""Somebody with a browser, as far as HTTP goes: cookies, redirects, and forms sent as the page has them."""

from __future__ import annotations

import http.client
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urljoin, urlsplit

from tests.lab.net import LabError, Namespace

MAX_REDIRECTS = 10
TIMEOUT_SECONDS = 30.0


@dataclass
class Form:
    """A form of a page: what it would send, and which buttons it has (name, value)."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class _Forms(HTMLParser):
    """Collects a page's forms and buttons."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.buttons: list[str] = []
        self.body: dict[str, str] = {}
        self._open: Form | None = None
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attrs}
        if tag == "body":
            self.body = has
        elif tag == "button" and "hx-post" in has:
            self.buttons.append(has["hx-post"])
        elif tag == "form":
            self._open = Form(has.get("action", ""), has.get("method", "get").upper())
            self.forms.append(self._open)
        elif self._open is not None:
            self._take(self._open, tag, has)

    def _take(self, form: Form, tag: str, has: dict[str, str]) -> None:
        kind, name = has.get("type", ""), has.get("name", "")
        if tag == "button" and kind != "button":
            form.buttons.append((name, has.get("value", "")))
        elif tag == "input" and name and (kind not in ("checkbox", "radio") or "checked" in has):
            form.fields[name] = has.get("value", "")
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and ("selected" in has or self._select not in form.fields):
            form.fields[self._select] = has.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = None
        elif tag == "select":
            self._select = ""


@dataclass(frozen=True)
class Page:
    """What a request led to, redirects followed."""

    url: str
    status: int
    text: str

    @property
    def body(self) -> dict[str, str]:
        """The attributes of the page's body: what the panel's script reads."""
        return self._parsed().body

    def button(self, post: str) -> str:
        """The address that a button with this script action posts to."""
        for address in self._parsed().buttons:
            if address.endswith(post):
                return address
        raise LabError(f"{self.url} ({self.status}) has no button for {post}")

    def _parsed(self) -> _Forms:
        parser = _Forms()
        parser.feed(self.text)
        return parser

    def form(self, action: str = "") -> Form:
        """The page's POST form whose action ends so (its own address when the action is empty)."""
        for form in self._parsed().forms:
            if form.method == "POST" and (form.action == "" if not action else form.action.endswith(action)):
                return form
        raise LabError(f"{self.url} ({self.status}) has no form for {action or 'itself'}")


class Person:
    """A browser session on the machine ``namespace``."""

    def __init__(self, namespace: Namespace, url: str) -> None:
        self.namespace = namespace
        self.base = url
        self.cookies: SimpleCookie = SimpleCookie()

    def open(self, url: str) -> Page:
        """GET an address (absolute, or a path of the server)."""
        return self._follow("GET", urljoin(self.base, url), None)

    def send(self, page: Page, form: Form, **values: str) -> Page:
        """Send a form of ``page`` with these values (a pressed button is one of them)."""
        return self._follow("POST", urljoin(page.url, form.action), form.fields | values)

    def press(self, page: Page, post: str) -> Page:
        """Press a button that the panel's script sends (htmx), with the headers that the script adds."""
        headers = {
            "HX-Request": "true",
            "HX-Current-URL": page.url,
            "X-CSRFToken": page.body["data-csrf"],
            "X-Trenza-Tailnet": page.body["data-tailnet"],
        }
        return self._follow("POST", urljoin(page.url, page.button(post)), {}, headers)

    # -- what people do

    def confirm_login(self, auth_url: str) -> Page:
        """Open a device's AuthURL and let it in by the form's button."""
        page = self.open(auth_url)
        form = page.form()
        if ("answer", "confirm") not in form.buttons:
            raise LabError(f"{page.url}: no button to confirm\n{page.text}")
        return self._expect(self.send(page, form, answer="confirm"))

    def approve(self, node_id: str) -> Page:
        """Press Approve on a pending device's page."""
        page = self.open(f"/devices/{node_id}")
        return self._expect(self.press(page, "/approve"))

    def act(self, node_id: str, action: str) -> Page:
        """Answer the dialog of ``expire`` or ``delete`` for a device."""
        page = self.open(f"/devices/{node_id}/{action}")
        return self._expect(self.send(page, page.form(f"/{action}")))

    def fill_in(self, path: str, **values: str) -> Page:
        """Open a dialog's page and send its form with these values."""
        page = self.open(path)
        return self._expect(self.send(page, page.form(path.partition("?")[0]), **values))

    @staticmethod
    def _expect(page: Page) -> Page:
        if page.status != 200:
            raise LabError(f"{page.url} answered {page.status}")
        return page

    # -- HTTP

    def _follow(
        self, method: str, url: str, fields: dict[str, str] | None, headers: dict[str, str] | None = None
    ) -> Page:
        for _ in range(MAX_REDIRECTS):
            status, location, text = self._request(method, url, fields, headers or {})
            if status not in (301, 302, 303, 307, 308):
                return Page(url, status, text)
            url, method, fields, headers = urljoin(url, location), "GET", None, None
        raise LabError(f"{url}: too many redirects")

    def _request(
        self, method: str, url: str, fields: dict[str, str] | None, more: dict[str, str]
    ) -> tuple[int, str, str]:
        parts = urlsplit(url)
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in self.cookies.items())
        headers = {"Cookie": cookies} | more
        body = None
        if fields is not None:
            body = urlencode(fields)
            headers |= {
                "Content-Type": "application/x-www-form-urlencoded",
                "Origin": f"{parts.scheme}://{parts.netloc}",
                "Referer": url,
            }
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        with self.namespace.entered():
            connection = http.client.HTTPConnection(
                parts.hostname or "", parts.port or 80, timeout=TIMEOUT_SECONDS
            )
            try:
                connection.request(method, path or "/", body, headers)
                response = connection.getresponse()
                text = response.read().decode(errors="replace")
            finally:
                connection.close()
        for value in response.headers.get_all("Set-Cookie") or ():
            self.cookies.load(value)
        return response.status, response.headers.get("Location", ""), text
