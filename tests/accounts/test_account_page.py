"""A person's own page: identities, passkeys, second step, sessions; each change in the audit log."""

from __future__ import annotations

import base64
import hmac
import json
import re
import struct
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.adapters import MFAAdapter
from accounts.models import AuditEvent, Tailnet, User
from accounts.openid.identity import identity_of
from accounts.services import audit, factors
from accounts.services.sessions import SEEN_EVERY, see_session
from accounts.services.signinlink import create_link
from accounts.signing_in import passkeys_possible
from accounts.tenancy import memberships_of, scope
from tests.accounts import factories
from tests.openid import Provider, app_settings, running_provider
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db(transaction=True)

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605 Version/26.0 Mobile Safari/604.1"
)


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: Provider, settings: Any) -> Provider:
    running.be_honest()
    settings.SOCIALACCOUNT_PROVIDERS = app_settings(running)
    cache.clear()
    return running


@pytest.fixture
def home() -> tuple[Tailnet, User]:
    return factories.tailnet()


def events(tailnet: Tailnet, *actions: str) -> list[tuple[str, str, str]]:
    with scope(tailnet=tailnet):
        found = AuditEvent.objects.filter(action__in=actions or ("CREATE", "DELETE", "UPDATE")).exclude(
            target_type__in=("TAILNET",)
        )
        return [(one.action, one.target_property, one.details) for one in found.order_by("pk")]


def link(visitor: Client, provider: Provider, name: str = "google") -> Any:
    """Add an identity, as the page's form does."""
    answer = visitor.post(f"/accounts/{name}/login/?process=connect&next=/account")
    return visitor.get(provider.follow(answer["Location"]))


def sign_in(provider: Provider, visitor: Client | None = None) -> Client:
    visitor = visitor or Client()
    answer = visitor.post("/accounts/google/login/")
    visitor.get(provider.follow(answer["Location"]))
    return visitor


def code_of(secret: str, step: int = 0) -> str:
    mac = hmac.digest(base64.b32decode(secret), struct.pack(">Q", int(time.time()) // 30 + step), "sha1")
    at = mac[-1] & 15
    return f"{(int.from_bytes(mac[at : at + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"


def set_up_app(visitor: Client) -> tuple[str, list[str]]:
    """An authenticator app; returns its secret and the recovery codes."""
    page = visitor.get("/accounts/2fa/totp/activate/").content.decode()
    secret = re.search(r'data-copy="([A-Z2-7]{32})"', page)
    assert secret is not None
    for step in (0, 1):  # the second, when the first ran out on its way
        answer = visitor.post("/accounts/2fa/totp/activate/", {"code": code_of(secret[1], step)})
        if answer.status_code == 302:
            break
    assert answer["Location"] == "/accounts/2fa/recovery-codes/"
    codes = re.findall(r"<li>(\d{8})</li>", visitor.get(answer["Location"]).content.decode())
    return secret[1], codes


# --- identities -------------------------------------------------------------------------------------------


def test_a_person_of_this_server_adds_google_and_signs_in_by_it(
    home: tuple[Tailnet, User], provider: Provider
) -> None:
    tailnet, owner = home
    visitor = Visitor(owner)
    assert link(visitor, provider)["Location"] == "/account"
    assert User.objects.count() == 1
    page = visitor.get("/account").content.decode()
    assert "ana@example.com" in page
    assert "You can now sign in with this identity." in page
    assert sign_in(provider).session["_auth_user_id"] == str(owner.pk)
    owner.refresh_from_db()
    assert (owner.iss, owner.email) == ("urn:trenza:local", owner.email)
    assert owner.email != "ana@example.com"
    assert ("CREATE", "IDENTITY", "") in events(tailnet)
    assert ("LOGIN", "", "by google account") in events(tailnet, "LOGIN")


def test_an_identity_of_somebody_else_is_not_added(home: tuple[Tailnet, User], provider: Provider) -> None:
    _, owner = home
    sign_in(provider)
    visitor = Visitor(owner)
    link(visitor, provider)
    assert "belongs to another person" in visitor.get("/account").content.decode()
    assert SocialAccount.objects.get().user_id != owner.pk


def test_nobody_is_linked_who_is_not_signed_in(provider: Provider) -> None:
    link(Client(), provider)
    assert (User.objects.count(), SocialAccount.objects.count()) == (0, 0)


def test_what_was_begun_signed_in_does_not_link_to_who_signs_in_next(
    home: tuple[Tailnet, User], provider: Provider
) -> None:
    _, owner = home
    visitor = Visitor(owner)
    back = provider.follow(visitor.post("/accounts/google/login/?process=connect")["Location"])
    visitor.post("/sign-out")
    visitor.force_login(factories.person(), backend="django.contrib.auth.backends.ModelBackend")
    visitor.get(back)
    assert SocialAccount.objects.count() == 0


def test_an_added_identity_is_removed_and_ones_own_is_not(
    home: tuple[Tailnet, User], provider: Provider
) -> None:
    tailnet, owner = home
    visitor = Visitor(owner)
    link(visitor, provider)
    added = SocialAccount.objects.get()
    path = f"/account/identities/{added.pk}/remove"
    assert "another person here" in visitor.get(path).content.decode()
    assert visitor.submit(path)["Location"] == "/account"
    assert SocialAccount.objects.count() == 0
    assert ("DELETE", "IDENTITY", "") in events(tailnet)

    ana = sign_in(provider)
    own = SocialAccount.objects.get()
    answer = Visitor(own.user).submit(f"/account/identities/{own.pk}/remove")
    assert answer.status_code == 409
    assert SocialAccount.objects.count() == 1
    assert ana.get("/account").status_code == 200


def test_anothers_identity_looks_like_none(home: tuple[Tailnet, User], provider: Provider) -> None:
    sign_in(provider)
    theirs = SocialAccount.objects.get()
    visitor = Visitor(home[1])
    for pk in (theirs.pk, 10**9):
        assert visitor.get(f"/account/identities/{pk}/remove").status_code == 404
        assert visitor.submit(f"/account/identities/{pk}/remove").status_code == 404
    assert SocialAccount.objects.count() == 1


def test_what_a_person_is_called_follows_their_provider(
    home: tuple[Tailnet, User], provider: Provider
) -> None:
    sign_in(provider)
    person = User.objects.get(iss=provider.issuer)
    tailnet = memberships_of(person.pk)[0].tailnet
    before = tailnet.netmap_version
    sign_in(provider)
    tailnet.refresh_from_db()
    assert tailnet.netmap_version == before
    provider.person |= {"email": "ana.new@example.com", "name": "Ana N."}
    sign_in(provider)
    person.refresh_from_db()
    tailnet.refresh_from_db()
    assert (person.email, person.display_name) == ("ana.new@example.com", "Ana N.")
    assert tailnet.netmap_version == before + 1
    assert ("UPDATE", "PROFILE", "") in events(tailnet)


def test_an_added_identity_does_not_rename_anybody(home: tuple[Tailnet, User], provider: Provider) -> None:
    _, owner = home
    link(Visitor(owner), provider)
    sign_in(provider)
    assert User.objects.get().email == owner.email


def test_two_first_sign_ins_at_once_make_one_person(provider: Provider) -> None:
    """The other one has just made the person, and not yet said that they are linked."""
    other = User.objects.create_user(email="ana@example.com", iss=provider.issuer, sub="1001")
    client = sign_in(provider)
    assert "_auth_user_id" not in client.session
    assert "signing in twice" in client.get("/sign-in").content.decode()
    assert (User.objects.get(), SocialAccount.objects.count()) == (other, 0)


def test_allauth_keeps_no_addresses(provider: Provider) -> None:
    sign_in(provider)
    assert EmailAddress.objects.count() == 0


@pytest.mark.parametrize(
    ("picture", "shown"),
    [
        ("https://lh3.googleusercontent.com/a", True),
        ("https://pictures.example/a", False),
        ("https://evilgoogleusercontent.com/a", False),
        ("https://x@lh3.googleusercontent.com.evil.example/a", False),
        ("http://lh3.googleusercontent.com/a", False),
        ("javascript:alert(1)", False),
        ("https://lh3.googleusercontent.com/" + "x" * 2000, False),
        (7, False),
    ],
)
def test_a_picture_is_one_that_pages_may_load(picture: Any, shown: bool) -> None:
    claims = {"sub": "1", "email": "a@example.com", "email_verified": True, "picture": picture}
    assert bool(identity_of(claims, issuer="https://i", says_domain=False).picture) is shown


# --- the second step --------------------------------------------------------------------------------------


def test_who_has_an_app_is_asked_for_it(home: tuple[Tailnet, User], provider: Provider) -> None:
    tailnet, owner = home
    visitor = Visitor(owner)
    link(visitor, provider)
    secret, codes = set_up_app(visitor)
    assert len(codes) == 10

    other = sign_in(provider)
    assert "_auth_user_id" not in other.session
    assert other.get("/devices")["Location"] == "/sign-in?next=%2Fdevices"
    for wrong in ("000000", "", "x" * 20):
        page = other.post("/accounts/2fa/authenticate/", {"code": wrong})
        assert page.status_code == 200
    assert (
        other.post("/accounts/2fa/authenticate/", {"code": codes[0]})["Location"]
        == settings.LOGIN_REDIRECT_URL
    )
    assert other.session["_auth_user_id"] == str(owner.pk)

    again = sign_in(provider)
    assert again.post("/accounts/2fa/authenticate/", {"code": codes[0]}).status_code == 200  # it was used
    assert secret not in str(Authenticator.objects.get(type="totp").data)
    assert events(tailnet, "LOGIN")[-1][2] == "by google account and recovery code"
    assert ("CREATE", "AUTHENTICATOR_APP", "") in events(tailnet)
    assert ("LOGIN_FAILED", "AUTHENTICATOR_APP", "") in events(tailnet, "LOGIN_FAILED")


def test_codes_are_guessed_a_few_times_only(home: tuple[Tailnet, User], provider: Provider) -> None:
    _, owner = home
    visitor = Visitor(owner)
    link(visitor, provider)
    _, codes = set_up_app(visitor)
    guesser = sign_in(provider)
    for number in range(5):
        guesser.post("/accounts/2fa/authenticate/", {"code": f"{number:06}"})
    page = guesser.post("/accounts/2fa/authenticate/", {"code": codes[0]})
    assert "Too many" in page.content.decode()
    assert "_auth_user_id" not in guesser.session


def test_changes_ask_again_after_a_while(
    home: tuple[Tailnet, User], provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, owner = home
    visitor = Visitor(owner)
    link(visitor, provider)
    _, codes = set_up_app(visitor)
    pk = SocialAccount.objects.get().pk
    assert visitor.get(f"/account/identities/{pk}/remove").status_code == 200
    later = time.time() + 301
    monkeypatch.setattr(
        "allauth.account.internal.flows.reauthentication.time", SimpleNamespace(time=lambda: later)
    )
    for path in (
        f"/account/identities/{pk}/remove",
        "/accounts/2fa/totp/deactivate/",
        "/accounts/2fa/recovery-codes/generate/",
        "/accounts/2fa/webauthn/add/",
    ):
        assert visitor.get(path)["Location"].startswith("/accounts/2fa/reauthenticate/"), path
    assert (
        visitor.submit(f"/account/identities/{pk}/remove")["Location"] == f"/account/identities/{pk}/remove"
    )
    assert SocialAccount.objects.count() == 1
    asked = link(visitor, provider, "oidc")
    assert visitor.get(asked["Location"])["Location"].startswith("/accounts/2fa/reauthenticate/")
    monkeypatch.undo()
    answer = visitor.post("/accounts/2fa/reauthenticate/", {"code": codes[1]})
    assert answer["Location"] == "/account"  # what had been asked for is done now
    assert SocialAccount.objects.count() == 2


def test_the_app_is_removed_and_its_codes_with_it(home: tuple[Tailnet, User]) -> None:
    tailnet, owner = home
    visitor = Visitor(owner)
    set_up_app(visitor)
    assert "shown once only" in visitor.get("/accounts/2fa/recovery-codes/").content.decode()
    assert "10 left" in visitor.get("/account").content.decode()
    visitor.post("/accounts/2fa/recovery-codes/generate/")
    visitor.post("/accounts/2fa/totp/deactivate/")
    assert Authenticator.objects.count() == 0
    assert {one[:2] for one in events(tailnet)} == {
        ("CREATE", "RECOVERY_CODES"),
        ("CREATE", "AUTHENTICATOR_APP"),
        ("UPDATE", "RECOVERY_CODES"),
        ("DELETE", "AUTHENTICATOR_APP"),
        ("DELETE", "RECOVERY_CODES"),
    }


def test_a_link_by_the_operator_is_the_way_back_in(home: tuple[Tailnet, User]) -> None:
    _, owner = home
    set_up_app(Visitor(owner))
    client = Client()
    client.get(f"/sign-in/link/{create_link(user=owner).token}")
    assert client.session["_auth_user_id"] == str(owner.pk)


def test_passkeys_belong_to_the_servers_name(settings: Any) -> None:
    settings.BASE_URL = "https://vpn.example.com:8443"
    assert MFAAdapter().get_public_key_credential_rp_entity()["id"] == "vpn.example.com"


@pytest.mark.parametrize(
    ("url", "possible"),
    [
        ("https://vpn.example.com", True),
        ("http://localhost:8080", True),
        ("http://vpn.example.com", False),
        ("http://127.0.0.1:8080", False),
        ("https://192.0.2.7", False),
        ("https://[2001:db8::1]", False),
    ],
)
def test_where_browsers_make_passkeys(settings: Any, url: str, possible: bool) -> None:
    settings.BASE_URL = url
    assert passkeys_possible() is possible


def given(**more: Any) -> dict[str, Any]:
    """A credential of the right shape with nothing in it."""
    response = {"clientDataJSON": "e30", "authenticatorData": "AAAA", "signature": "AAAA", "userHandle": "MQ"}
    named = {"id": "AAAA", "rawId": "AAAA", "type": "public-key", "clientExtensionResults": {}}
    return named | more | {"response": response | more.get("response", {})}


NO_PASSKEYS: tuple[Any, ...] = (
    {},
    [],
    1,
    "text",
    None,
    {"id": "x"},
    {"response": {"userHandle": "MQ"}},
    given(),
    given(id="BBBB"),
    given(id=7, rawId=7),
    given(type="password"),
    given(response={"userHandle": None}),
    given(response={"userHandle": "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5"}),
    given(response={"userHandle": "////"}),
    given(response={"clientDataJSON": "e"}),
    given(response={"clientDataJSON": "W10"}),
    given(response={"authenticatorData": ""}),
    given(response={"authenticatorData": "A" * 50}),
    given(response={"attestationObject": "oA"}),
    given(response={"attestationObject": "AAAA"}),
)


@pytest.mark.parametrize("credential", NO_PASSKEYS)
def test_a_passkey_that_is_none_signs_nobody_in(home: tuple[Tailnet, User], credential: Any) -> None:
    client = Client()
    client.get("/accounts/2fa/webauthn/login/", headers={"Accept": "application/json"})
    answer = client.post("/accounts/2fa/webauthn/login/", {"credential": json.dumps(credential)})
    assert answer["Location"] == "/sign-in"
    assert "_auth_user_id" not in client.session


@pytest.mark.parametrize("credential", NO_PASSKEYS)
def test_what_is_no_passkey_is_not_added(home: tuple[Tailnet, User], credential: Any) -> None:
    visitor = Visitor(home[1])
    visitor.get("/accounts/2fa/webauthn/add/")
    form = {"credential": json.dumps(credential), "name": "x", "passwordless": "on"}
    assert visitor.post("/accounts/2fa/webauthn/add/", form).status_code == 200
    assert Authenticator.objects.count() == 0


def test_passkeys_are_tried_a_few_times_only() -> None:
    client = Client()
    answers = [client.post("/accounts/2fa/webauthn/login/", {"credential": "{}"}) for _ in range(12)]
    assert answers[-1].status_code == 429


# --- sessions ---------------------------------------------------------------------------------------------


def test_sessions_are_listed_and_ended(home: tuple[Tailnet, User]) -> None:
    tailnet, owner = home
    here, phone, third = Client(), Client(), Client()
    for client, name in ((here, FIREFOX), (phone, PHONE), (third, "")):
        token = create_link(user=owner).token
        client.get(f"/sign-in/link/{token}", headers={"User-Agent": name})
    page = here.get("/account").content.decode()
    assert ("Firefox · Linux" in page, "Safari · iOS" in page, "Another browser" in page) == (True,) * 3
    assert page.count("this browser") == 1

    other = UserSession.objects.get(user_agent=PHONE)
    assert "Safari" in here.get(f"/account/sessions/{other.pk}/end").content.decode()
    assert here.post(f"/account/sessions/{other.pk}/end", {"tailnet": tailnet.pk})["Location"] == "/account"
    assert phone.get("/devices").status_code == 302
    assert third.get("/devices").status_code == 200

    here.post("/account/sessions/end", {"tailnet": tailnet.pk})
    assert third.get("/devices").status_code == 302
    assert here.get("/devices").status_code == 200
    assert events(tailnet, "LOGOUT")[-1][2] == "of another browser"


def test_sessions_cost_the_same_few_queries_however_many_they_are(home: tuple[Tailnet, User]) -> None:
    _, owner = home
    visitor = Visitor(owner)
    visitor.get("/account")
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            visitor.get("/account")
        counts.append(len(queries))
        for _ in range(10):
            Visitor(owner)
    assert counts[0] == counts[1]


def test_a_session_that_ended_by_itself_is_not_listed(home: tuple[Tailnet, User]) -> None:
    _, owner = home
    visitor, other = Visitor(owner), Visitor(owner)
    other.session.flush()
    visitor.get("/account")
    assert UserSession.objects.count() == 1


def test_anothers_session_looks_like_none(home: tuple[Tailnet, User]) -> None:
    tailnet, owner = home
    member = factories.member(tailnet)
    theirs = Visitor.of(member)
    visitor = Visitor(owner)
    pk = UserSession.objects.get(user=member.user).pk
    for wanted in (pk, 10**9):
        assert visitor.get(f"/account/sessions/{wanted}/end").status_code == 404
        assert visitor.submit(f"/account/sessions/{wanted}/end").status_code == 404
    assert theirs.get("/devices").status_code == 200


def test_when_a_session_was_last_seen_is_kept_by_the_quarter_of_an_hour(home: tuple[Tailnet, User]) -> None:
    visitor = Visitor(home[1])
    kept, session = UserSession.objects.get(), visitor.session
    see_session(session=session, now=kept.last_seen_at + SEEN_EVERY / 2)
    assert UserSession.objects.get().last_seen_at == kept.last_seen_at
    later = kept.last_seen_at + SEEN_EVERY * 2
    see_session(session=session, now=later)
    assert UserSession.objects.get().last_seen_at == later


def test_signing_out_is_in_the_audit_log(home: tuple[Tailnet, User]) -> None:
    tailnet, owner = home
    Visitor(owner).submit("/sign-out")
    assert events(tailnet, "LOGOUT") == [("LOGOUT", "", "")]


def test_a_person_switched_off_is_told_so(provider: Provider) -> None:
    sign_in(provider)
    User.objects.update(is_active=False)
    client = sign_in(provider)
    assert "_auth_user_id" not in client.session
    assert "switched off" in client.get("/accounts/inactive/").content.decode()


@pytest.mark.parametrize("path", ["/account", "/account/sessions/1/end", "/account/identities/1/remove"])
def test_strangers_are_sent_to_sign_in(path: str) -> None:
    assert Client().get(path)["Location"].startswith("/sign-in")


def test_an_identity_is_taken_away_with_its_record_or_not_at_all(
    home: tuple[Tailnet, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    _tailnet, owner = home
    said = {"iss": "https://id.example.com", "sub": "1", "email": "ana@example.com"}
    account = SocialAccount.objects.create(user=owner, provider="oidc", uid="one", extra_data=said)

    def fails(**_: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(audit, "record", fails)
        with pytest.raises(OSError, match="full"):
            factors.unlink_identity(user=owner, pk=account.pk)
    assert SocialAccount.objects.filter(pk=account.pk).exists()
    factors.unlink_identity(user=owner, pk=account.pk)
    assert not SocialAccount.objects.exists()
