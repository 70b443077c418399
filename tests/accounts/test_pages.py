"""Signing in by link, signing out, choosing a tailnet, language and theme; how refusals look."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.actors import Actor
from accounts.models import User
from accounts.roles import Role
from accounts.services.people import add_member, create_person, suspend_member
from accounts.services.signinlink import LIFETIME, create_link
from accounts.views import MAX_FAILED_LINKS
from nodes.routing import RouteQuery
from tests.accounts import factories
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

GOOGLE = {"google": {"APPS": [{"client_id": "id", "secret": "secret"}]}}


def link_of(user: User, **values: Any) -> str:
    return f"/sign-in/link/{create_link(user=user, **values).token}"


# --- the link --------------------------------------------------------------------------------------------


def test_a_link_signs_in_once_and_leads_to_the_devices(client: Client) -> None:
    tailnet, owner = factories.tailnet()
    path = link_of(owner, tailnet=tailnet)
    answer = client.get(path)
    assert (answer.status_code, answer["Location"]) == (302, "/")
    assert client.get("/devices").status_code == 200
    again = Client().get(path)
    assert again.status_code == 410
    assert "manage.py signinlink" in again.content.decode()


def test_a_used_link_does_not_end_a_session(client: Client) -> None:
    _, owner = factories.tailnet()
    path = link_of(owner)
    client.get(path)
    assert client.get(path).status_code == 410
    assert client.get("/devices").status_code == 200


@pytest.mark.parametrize("token", ["", "nothing", "x" * 400])
def test_a_link_that_never_was_is_gone(client: Client, token: str) -> None:
    assert client.get(f"/sign-in/link/{token or 'a'}").status_code == 410


def test_a_link_runs_out_after_its_quarter_of_an_hour(client: Client) -> None:
    _, owner = factories.tailnet()
    path = link_of(owner, now=timezone.now() - LIFETIME - timedelta(seconds=1))
    assert client.get(path).status_code == 410
    assert client.get("/devices").status_code == 302


def test_a_link_opens_the_tailnet_it_was_made_for(client: Client) -> None:
    first, owner = factories.tailnet(name="first")
    second, _ = factories.tailnet(name="second")
    add_member(tailnet=second, user=owner, by=Actor.command())
    client.get(link_of(owner, tailnet=second))
    assert client.get("/devices").context["tailnet"] == second
    assert first.name == "first"


def test_whoever_guesses_links_is_stopped(client: Client) -> None:
    _, owner = factories.tailnet()
    for number in range(MAX_FAILED_LINKS):
        assert client.get(f"/sign-in/link/guess{number}").status_code == 410
    stopped = client.get(link_of(owner))
    assert stopped.status_code == 429
    assert 0 < int(stopped["Retry-After"]) <= 60
    assert "Too many attempts" in stopped.content.decode()


def test_a_link_leads_where_the_person_was_going(client: Client) -> None:
    _, owner = factories.tailnet()
    asked = client.get("/register/sometoken")
    assert asked["Location"] == "/sign-in?next=%2Fregister%2Fsometoken"
    assert client.get(asked["Location"]).status_code == 200
    assert client.get(link_of(owner))["Location"] == "/register/sometoken"


@pytest.mark.parametrize(
    "wanted", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:1"]
)
def test_nobody_is_sent_to_another_site(client: Client, wanted: str) -> None:
    _, owner = factories.tailnet()
    client.get("/sign-in", {"next": wanted})
    assert client.get(link_of(owner))["Location"] == "/"
    assert client.get("/sign-in", {"next": wanted})["Location"] == "/"


# --- providers -------------------------------------------------------------------------------------------


def test_google_is_offered_only_when_it_is_set_up(client: Client, settings: Any) -> None:
    assert "Google" not in client.get("/sign-in").content.decode()
    settings.SOCIALACCOUNT_PROVIDERS = GOOGLE
    page = client.get("/sign-in?next=/keys").content.decode()
    assert 'action="/accounts/google/login/?process=login&amp;next=%2Fkeys"' in page


def test_google_is_asked_by_post_alone_with_pkce(client: Client, settings: Any) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = GOOGLE
    assert client.get("/accounts/google/login/").status_code == 200  # a page that asks to go on
    answer = client.post("/accounts/google/login/?process=login&next=/keys")
    assert answer.status_code == 302
    assert answer["Location"].startswith("https://accounts.google.com/o/oauth2/")
    assert "code_challenge=" in answer["Location"]


def test_only_where_a_form_leads_to_google_the_page_allows_it(client: Client, settings: Any) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = GOOGLE
    policy = client.get("/sign-in")["Content-Security-Policy"]
    assert "form-action 'self' https://accounts.google.com" in policy.split("; ")
    assert "accounts.google.com" not in client.get("/sign-in/link/none")["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path", ["login/", "signup/", "social/signup/", "password/reset/", "password/set/", "email/"]
)
def test_allauths_own_pages_are_no_way_in(client: Client, path: str) -> None:
    assert client.get(f"/accounts/{path}").status_code == 404


# --- sessions --------------------------------------------------------------------------------------------


def test_signing_out_needs_a_post(client: Client) -> None:
    _, owner = factories.tailnet()
    visitor = Visitor(owner)
    assert visitor.get("/sign-out").status_code == 405
    assert visitor.submit("/sign-out")["Location"] == "/sign-in"
    assert visitor.get("/devices")["Location"] == "/sign-in?next=%2Fdevices"


def test_a_fragment_of_somebody_signed_out_leads_to_the_sign_in_page() -> None:
    answer = Visitor().fragment("/devices/1/row", page="/devices?q=a")
    assert answer["HX-Redirect"] == "/sign-in?next=%2Fdevices%3Fq%3Da"


@pytest.mark.parametrize(
    "path", ["/sign-out", "/tailnet", "/preferences", "/keys/new", "/devices/1/approve", "/register/token"]
)
def test_every_form_needs_its_csrf_token(path: str) -> None:
    _, owner = factories.tailnet()
    answer = Visitor(owner, enforce_csrf_checks=True).submit(path)
    assert answer.status_code == 403
    assert "This page was too old" in answer.content.decode()


def test_somebody_of_no_tailnet_is_told_so() -> None:
    user = create_person(email="lost@example.com")
    visitor = Client()
    visitor.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    page = visitor.get("/devices")
    assert page.status_code == 403
    assert "lost@example.com" in page.content.decode()


def test_somebody_suspended_is_out_at_the_next_page() -> None:
    tailnet, owner = factories.tailnet()
    member = factories.member(tailnet)
    visitor = Visitor.of(member)
    assert visitor.get("/devices").status_code == 200
    suspend_member(membership=member, by=Actor.person(owner))
    assert visitor.get("/devices").status_code == 403


# --- several tailnets ------------------------------------------------------------------------------------


def test_switching_to_another_tailnet_of_ones_own() -> None:
    first, owner = factories.tailnet()
    second, _ = factories.tailnet()
    add_member(tailnet=second, user=owner, by=Actor.command())
    visitor = Visitor(owner, first)
    assert visitor.submit("/tailnet", to=second.pk)["Location"] == "/"
    assert visitor.get("/devices").context["tailnet"] == second


@pytest.mark.parametrize("to", ["", "0", "x", "-1", "99999999999999999999"])
def test_nobody_switches_to_what_is_not_theirs(to: str) -> None:
    first, owner = factories.tailnet()
    foreign, _ = factories.tailnet()
    visitor = Visitor(owner, first)
    assert visitor.submit("/tailnet", to=to or foreign.pk).status_code == 404
    assert visitor.get("/devices").context["tailnet"] == first


def test_a_form_of_another_tailnet_is_refused() -> None:
    first, owner = factories.tailnet()
    second, _ = factories.tailnet()
    add_member(tailnet=second, user=owner, role=Role.ADMIN, by=Actor.command())
    visitor = Visitor(owner, first)
    visitor.submit("/tailnet", to=second.pk)
    late = visitor.submit("/keys/new", days=1)  # bears the first tailnet's id
    assert late.status_code == 409
    assert "switched to another tailnet" in late.content.decode()
    without = visitor.post("/keys/new", {"days": 1})
    assert without.status_code == 409
    by_htmx = visitor.submit("/keys/new", page="/keys", days=1)
    assert (by_htmx.status_code, "otherTailnet" in by_htmx["HX-Trigger"]) == (409, True)
    header = {"HX-Request": "true", "X-Trenza-Tailnet": str(first.pk)}
    assert visitor.get("/devices", headers=header).status_code == 409


# --- language and theme ----------------------------------------------------------------------------------


def test_language_and_theme_are_kept_with_the_person() -> None:
    _, owner = factories.tailnet()
    visitor = Visitor(owner)
    assert visitor.submit("/preferences", language="es", next="/keys")["Location"] == "/keys"
    visitor.submit("/preferences", theme="dark")
    page = visitor.get("/keys").content.decode()
    assert '<html lang="es" data-wanted-theme="dark"' in page
    assert "Claves" in page
    elsewhere = Client()
    elsewhere.get(link_of(owner))
    assert '<html lang="es" data-wanted-theme="dark"' in elsewhere.get("/devices").content.decode()


def test_a_visitors_choices_are_kept_in_the_browser(client: Client) -> None:
    assert '<html lang="en" data-wanted-theme="system"' in client.get("/sign-in").content.decode()
    client.post("/preferences", {"language": "es", "next": "/sign-in"})
    client.post("/preferences", {"theme": "light"})
    assert '<html lang="es" data-wanted-theme="light"' in client.get("/sign-in").content.decode()


def test_the_browsers_language_is_the_first_one_shown(client: Client) -> None:
    page = client.get("/sign-in", headers={"Accept-Language": "es-MX,es;q=0.9,en;q=0.5"})
    assert 'lang="es"' in page.content.decode()


@pytest.mark.parametrize("values", [{"language": "xx"}, {"theme": "neon"}, {"language": "es" * 500}, {}])
def test_choices_that_do_not_exist_change_nothing(client: Client, values: dict[str, str]) -> None:
    _, owner = factories.tailnet()
    assert client.post("/preferences", values).status_code == 302
    assert '<html lang="en" data-wanted-theme="system"' in client.get("/sign-in").content.decode()
    visitor = Visitor(owner)
    assert visitor.submit("/preferences", **values).status_code in (302, 400)
    assert '<html lang="en" data-wanted-theme="system"' in visitor.get("/devices").content.decode()


# --- how pages are served ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/sign-in", "/devices", "/keys", "/nothing-here", "/sign-in/link/used"])
def test_the_content_policy_lets_no_inline_code_run(path: str) -> None:
    _, owner = factories.tailnet()
    for visitor in (Visitor(owner), Client()):
        policy = visitor.get(path)["Content-Security-Policy"]
        assert "'unsafe-inline'" not in policy
        assert "'unsafe-eval'" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy


def test_pages_are_not_kept_by_caches() -> None:
    _, owner = factories.tailnet()
    assert "no-store" in Visitor(owner).get("/devices")["Cache-Control"]


def test_an_address_that_does_not_exist_looks_like_one_that_is_not_for_you() -> None:
    _, owner = factories.tailnet()
    visitor = Visitor(owner)
    missing, unseen = visitor.get("/nothing-here"), visitor.get("/devices/nothing")
    assert (missing.status_code, unseen.status_code) == (404, 404)
    assert missing.content.decode().count("<h1>Not found</h1>") == 1
    assert unseen.content.decode().count("<h1>Not found</h1>") == 1


def test_numbers_and_characters_that_no_database_takes_name_nothing() -> None:
    _tailnet, owner = factories.tailnet()
    visitor, huge = Visitor(owner), "9" * 30
    for path in ("/users/{}", "/users/{}/suspend", "/relays/{}/rename", "/tailnets/{}/leave"):
        assert visitor.get(path.format(huge)).status_code == 404
    assert visitor.post("/tailnet", {"to": "9" * 5000}).status_code == 404
    assert visitor.fragment("/settings/webhooks/a%00b").status_code == 404
    assert RouteQuery.parse({"q": "a\0b"}).search == "ab"
