"""What must sign nobody in: each row is one answer of a provider, taken through allauth's real flow.

The provider is a real server; it stands in for Google and for another OpenID provider. Every refused row
leaves nobody signed in and no person made. ``test_an_honest_token_signs_in`` is what they are measured by.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import jwt
import pytest
from allauth.socialaccount.models import SocialAccount
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from django.core.cache import cache
from django.test import Client, override_settings
from django.utils import timezone

from accounts.access import active_memberships
from accounts.models import User
from accounts.openid.metadata import cache_key
from accounts.openid.tokens import MAX_TOKEN, half_hash
from accounts.services.people import create_person
from accounts.views.providers import MAX_FAILED_SIGN_INS, MAX_SIGN_INS
from tests.accounts import factories
from tests.openid import CLIENT_SECRET, Forge, Provider, app_settings, part, running_provider
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

NAMES = ("google", "oidc")
STRANGER = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)
OTHER_CURVE = ec.generate_private_key(ec.SECP384R1())


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: Provider, settings: Any) -> Provider:
    """The provider when it is honest, and a server that knows nothing of it yet."""
    running.be_honest()
    settings.SOCIALACCOUNT_PROVIDERS = app_settings(running)
    cache.clear()
    return running


def begin(client: Client, name: str = "google", process: str = "login", **more: str) -> str:
    """Where the panel sends the browser."""
    query = "&".join(f"{key}={value}" for key, value in {"process": process, **more}.items())
    answer = client.post(f"/accounts/{name}/login/?{query}")
    assert answer.status_code == 302
    return str(answer["Location"])


def sign_in(client: Client, provider: Provider, name: str = "google", **more: str) -> Any:
    return client.get(provider.follow(begin(client, name, **more)))


def refused(client: Client, answer: Any, log: Any, code: str) -> None:
    """Back on the sign-in page, as nobody, and the log says why."""
    assert (answer.status_code, answer["Location"]) == (302, "/sign-in")
    assert [
        record.getMessage().rpartition(": ")[2] for record in log.records if record.name == "trenza.signin"
    ] == [code]
    assert "_auth_user_id" not in client.session
    assert client.get("/devices")["Location"] == "/sign-in?next=%2Fdevices"
    assert (User.objects.count(), SocialAccount.objects.count()) == (0, 0)


def without(claims: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in claims.items() if key != name}


def unsigned(claims: dict[str, Any], algorithm: str) -> str:
    return f"{part({'alg': algorithm, 'kid': 'now'})}.{part(claims)}."


def by_public_key(provider: Provider, claims: dict[str, Any]) -> str:
    """The classic confusion: the public key as the secret of an HMAC."""
    secret = provider.rsa.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return by_shared_secret(secret, claims)


def by_shared_secret(secret: bytes, claims: dict[str, Any]) -> str:
    signed = f"{part({'alg': 'HS256', 'kid': 'now'})}.{part(claims)}"
    mac = hmac.digest(secret, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def with_payload_of(token: str, other: str) -> str:
    """The header and signature of one token around the payload of another."""
    first, second = token.split("."), other.split(".")
    return f"{first[0]}.{second[1]}.{first[2]}"


def with_header(token: str, header: str | dict[str, Any]) -> str:
    return f"{part(header)}.{token.partition('.')[2]}"


def twice(claims: dict[str, Any], name: str, value: Any) -> str:
    """The payload with one member standing in it twice, the honest one last."""
    return f'{{"{name}": {json.dumps(value)}, {json.dumps(claims)[1:]}'


def answer_of(id_token: Any, access_token: Any = "an-access-token") -> dict[str, Any]:
    made = {"id_token": id_token, "access_token": access_token, "token_type": "Bearer"}
    return {name: value for name, value in made.items() if value is not None}


HOSTILE: tuple[tuple[str, str, Forge], ...] = (
    # who made it
    ("another issuer", "issuer", lambda p, c: p.sign(c | {"iss": "https://evil.example"})),
    ("an issuer with a path", "issuer", lambda p, c: p.sign(c | {"iss": c["iss"] + "/tenant"})),
    ("an issuer with a slash more", "issuer", lambda p, c: p.sign(c | {"iss": c["iss"] + "/"})),
    (
        "the real Google's name on another's key",
        "issuer",
        lambda p, c: p.sign(c | {"iss": "https://accounts.google.com"}),
    ),
    ("no issuer", "issuer", lambda p, c: p.sign(without(c, "iss"))),
    ("a list of issuers", "issuer", lambda p, c: p.sign(c | {"iss": [c["iss"]]})),
    # for whom
    ("another client", "audience", lambda p, c: p.sign(c | {"aud": "another-client"})),
    ("no audience", "audience", lambda p, c: p.sign(without(c, "aud"))),
    ("an empty list of audiences", "audience", lambda p, c: p.sign(c | {"aud": []})),
    ("another client beside us", "audience", lambda p, c: p.sign(c | {"aud": [c["aud"], "another-client"]})),
    (
        "another client beside us, and we asked",
        "audience",
        lambda p, c: p.sign(c | {"aud": [c["aud"], "x"], "azp": c["aud"]}),
    ),
    ("our name within a longer one", "audience", lambda p, c: p.sign(c | {"aud": f"{c['aud']} another"})),
    ("another client asked for it", "authorized-party", lambda p, c: p.sign(c | {"azp": "another-client"})),
    ("an authorized party that is nobody", "authorized-party", lambda p, c: p.sign(c | {"azp": None})),
    # for which login
    ("no nonce", "nonce", lambda p, c: p.sign(without(c, "nonce"))),
    ("an empty nonce", "nonce", lambda p, c: p.sign(c | {"nonce": ""})),
    ("another login's nonce", "nonce", lambda p, c: p.sign(c | {"nonce": "x" * 43})),
    ("a nonce that is true", "nonce", lambda p, c: p.sign(c | {"nonce": True})),
    ("a list with the nonce", "nonce", lambda p, c: p.sign(c | {"nonce": [c["nonce"]]})),
    (
        "another access token's hash",
        "access-token",
        lambda p, c: p.sign(c | {"at_hash": part("0123456789abcdef")}),
    ),
    ("an access token's hash that is a number", "access-token", lambda p, c: p.sign(c | {"at_hash": 0})),
    # when
    ("expired", "expired", lambda p, c: p.sign(c | {"exp": time.time() - 61})),
    ("no expiry", "time", lambda p, c: p.sign(without(c, "exp"))),
    ("an expiry as text", "time", lambda p, c: p.sign(c | {"exp": str(c["exp"])})),
    ("an expiry that is true", "time", lambda p, c: p.sign(c | {"exp": True})),
    ("an expiry without end", "malformed", lambda p, c: p.sign(json.dumps(c | {"exp": float("inf")}))),
    (
        "an expiry too large for a number",
        "time",
        lambda p, c: p.sign(json.dumps(c).replace(f'"exp": {c["exp"]}', '"exp": 1e999')),
    ),
    ("an expiry beyond fractions", "time", lambda p, c: p.sign(c | {"exp": 10**400})),
    ("a time of issue beyond fractions", "time", lambda p, c: p.sign(c | {"iat": 10**400})),
    ("a beginning beyond fractions", "time", lambda p, c: p.sign(c | {"nbf": -(10**400)})),
    ("issued in the future", "not-yet", lambda p, c: p.sign(c | {"iat": time.time() + 90})),
    ("issued long ago", "too-old", lambda p, c: p.sign(c | {"iat": time.time() - 3600})),
    ("no time of issue", "time", lambda p, c: p.sign(without(c, "iat"))),
    ("not to be used yet", "not-yet", lambda p, c: p.sign(c | {"nbf": time.time() + 90})),
    # about whom
    ("no subject", "subject", lambda p, c: p.sign(without(c, "sub"))),
    ("an empty subject", "subject", lambda p, c: p.sign(c | {"sub": ""})),
    ("a subject that is a number", "subject", lambda p, c: p.sign(c | {"sub": 1001})),
    ("a subject longer than any", "subject", lambda p, c: p.sign(c | {"sub": "1" * 256})),
    ("a subject with a line's end", "subject", lambda p, c: p.sign(c | {"sub": "10\n01"})),
    # the address
    ("an unverified address", "unverified", lambda p, c: p.sign(c | {"email_verified": False})),
    ('an address verified "false"', "unverified", lambda p, c: p.sign(c | {"email_verified": "false"})),
    ('an address verified "true" as text', "unverified", lambda p, c: p.sign(c | {"email_verified": "true"})),
    ("an address verified 1", "unverified", lambda p, c: p.sign(c | {"email_verified": 1})),
    ("an address of which nothing is said", "unverified", lambda p, c: p.sign(without(c, "email_verified"))),
    (
        "verified by another name",
        "unverified",
        lambda p, c: p.sign(without(c, "email_verified") | {"verified_email": True}),
    ),
    ("no address", "unverified", lambda p, c: p.sign(without(c, "email"))),
    ("what is no address", "unverified", lambda p, c: p.sign(c | {"email": "ana"})),
    ("two addresses", "unverified", lambda p, c: p.sign(c | {"email": [c["email"], "eva@example.com"]})),
    # the signature
    ("no signature, alg none", "malformed", lambda p, c: unsigned(c, "none")),
    ("alg none with something as signature", "algorithm", lambda p, c: unsigned(c, "none") + "AAAA"),
    ("alg NONE", "algorithm", lambda p, c: unsigned(c, "NONE") + "AAAA"),
    ("HS256 with the public key", "algorithm", by_public_key),
    ("HS256 with the client's secret", "algorithm", lambda p, c: by_shared_secret(CLIENT_SECRET.encode(), c)),
    ("RS384, which we did not ask for", "algorithm", lambda p, c: p.sign(c, "RS384")),
    ("PS256, which we did not ask for", "algorithm", lambda p, c: p.sign(c, "PS256")),
    ("ES384, which we did not ask for", "algorithm", lambda p, c: p.sign(c, "ES384", OTHER_CURVE)),
    (
        "an algorithm that is a list",
        "algorithm",
        lambda p, c: with_header(p.sign(c), {"alg": ["RS256"], "kid": "now"}),
    ),
    ("no signature", "malformed", lambda p, c: p.sign(c).rpartition(".")[0] + "."),
    ("a signature cut short", "signature", lambda p, c: p.sign(c)[:-8]),
    (
        "a signature of other claims",
        "signature",
        lambda p, c: with_payload_of(p.sign(c), p.sign(c | {"sub": "1"})),
    ),
    ("a signature by another key of the same name", "signature", lambda p, c: p.sign(c, key=STRANGER)),
    ("the key of another algorithm", "key", lambda p, c: p.sign(c, kid="now-ec")),
    (
        "the key inside the token",
        "key",
        lambda p, c: p.sign(c, key=STRANGER, kid=None, jwk=p.jwks()["keys"][0]),
    ),
    (
        "the key at an address of the token's choice",
        "key",
        lambda p, c: p.sign(c, key=STRANGER, kid="x", jku=f"{p.issuer}/keys"),
    ),
    ("a key that nobody knows", "key", lambda p, c: p.sign(c, kid="yesterday")),
    ("no key's name", "key", lambda p, c: p.sign(c, kid=None)),
    (
        "a key's name that is none",
        "key",
        lambda p, c: with_header(p.sign(c), {"alg": "RS256", "kid": 7}),
    ),
    ("an extension that must be understood", "header", lambda p, c: p.sign(c, crit=["b64"], b64=True)),
    # its form
    ("four parts", "malformed", lambda p, c: p.sign(c) + ".AAAA"),
    ("two parts", "malformed", lambda p, c: p.sign(c).rpartition(".")[0]),
    (
        "an encrypted token",
        "malformed",
        lambda p, c: ".".join([part({"alg": "RSA-OAEP", "enc": "A256GCM"}), *["AAAA"] * 4]),
    ),
    ("a token with a line's end", "malformed", lambda p, c: p.sign(c) + "\n"),
    ("a payload that is a list", "malformed", lambda p, c: p.sign(json.dumps([c]))),
    ("a payload that is no JSON", "malformed", lambda p, c: p.sign("no JSON")),
    ("a payload nested without end", "malformed", lambda p, c: p.sign('{"a":' + "[" * 5000)),
    ("two audiences of one name", "malformed", lambda p, c: p.sign(twice(c, "aud", "another-client"))),
    ("two subjects of one name", "malformed", lambda p, c: p.sign(twice(c, "sub", "1"))),
    (
        "two algorithms of one name",
        "malformed",
        lambda p, c: with_header(p.sign(c), '{"alg":"none","alg":"RS256","kid":"now"}'),
    ),
    ("a token without end", "oversized", lambda p, c: p.sign(c | {"name": "x" * MAX_TOKEN})),
    ("an answer without end", "oversized", lambda p, c: answer_of(p.sign(c)) | {"more": "x" * 300_000}),
    ("only an access token", "no-token", lambda p, c: answer_of(None)),
    ("only an ID token", "no-token", lambda p, c: answer_of(p.sign(c), None)),
    ("an ID token that is claims", "no-token", lambda p, c: answer_of(c)),
    (
        "an answer with two ID tokens",
        "malformed",
        lambda p, c: {"raw": f'{{"id_token":"x",{json.dumps(answer_of(p.sign(c)))[1:]}'},
    ),
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("code", "forge"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_a_hostile_token_signs_nobody_in(
    client: Client, provider: Provider, caplog: pytest.LogCaptureFixture, name: str, code: str, forge: Forge
) -> None:
    provider.forge = forge
    answer = sign_in(client, provider, name)
    refused(client, answer, caplog, code)
    assert "/userinfo" not in provider.visits


# --- honest ones ------------------------------------------------------------------------------------------

HONEST: tuple[tuple[str, Forge], ...] = (
    ("RS256", lambda p, c: p.sign(c)),
    ("ES256", lambda p, c: p.sign(c, "ES256")),
    ("a list with one audience", lambda p, c: p.sign(c | {"aud": [c["aud"]], "azp": c["aud"]})),
    ("a clock a minute behind", lambda p, c: p.sign(c | {"iat": c["iat"] - 59, "exp": c["iat"] - 50})),
    ("a clock a minute ahead", lambda p, c: p.sign(c | {"iat": c["iat"] + 55, "nbf": c["iat"] + 55})),
    ("its access token's hash", lambda p, c: p.sign(c | {"at_hash": half_hash("an-access-token")})),
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("forge", [row[1] for row in HONEST], ids=[row[0] for row in HONEST])
def test_an_honest_token_signs_in(client: Client, provider: Provider, name: str, forge: Forge) -> None:
    provider.forge = forge
    assert sign_in(client, provider, name, next="/keys")["Location"] == "/keys"
    person = User.objects.get()
    assert client.session["_auth_user_id"] == str(person.pk)
    assert (person.iss, person.sub, person.email) == (provider.issuer, "1001", "ana@example.com")
    assert client.get("/keys").status_code == 200
    assert "/userinfo" not in provider.visits


@pytest.mark.parametrize("methods", [["client_secret_basic"], None, ["client_secret_post"]])
def test_the_secret_is_given_as_the_provider_wants_it(
    client: Client, provider: Provider, methods: list[str] | None
) -> None:
    provider.metadata = {"token_endpoint_auth_methods_supported": methods}
    sign_in(client, provider, "oidc")
    assert client.session["_auth_user_id"]


def test_a_wrong_secret_signs_nobody_in(
    client: Client, provider: Provider, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.SOCIALACCOUNT_PROVIDERS["oidc"]["APPS"][0]["secret"] = "another"
    refused(client, sign_in(client, provider, "oidc"), caplog, "refused-by-provider")


def test_a_provider_that_is_away_holds_up_no_page(client: Client, provider: Provider, settings: Any) -> None:
    gone = app_settings(provider)
    gone["oidc"]["APPS"][0]["settings"] = {"issuer": "http://127.0.0.1:9"}
    settings.SOCIALACCOUNT_PROVIDERS = gone
    page = client.get("/sign-in")
    policy = [directive.strip() for directive in page["Content-Security-Policy"].split(";")]
    assert f"form-action 'self' {provider.issuer}" in policy
    assert "Continue with Example ID" in page.content.decode()
    assert client.post("/accounts/oidc/login/")["Location"] == "/sign-in"
    assert "does not answer" in client.get("/sign-in").content.decode()


def test_a_login_asks_with_state_nonce_and_pkce(client: Client, provider: Provider) -> None:
    seen = [dict(parse_qsl(urlsplit(begin(client)).query)) for _ in range(2)]
    for asked in seen:
        assert asked["code_challenge_method"] == "S256"
        assert asked["scope"] == "openid email profile"
        assert asked["response_type"] == "code"
        assert asked["redirect_uri"] == "http://127.0.0.1:8080/accounts/google/login/callback/"
    for secret in ("state", "nonce", "code_challenge"):
        assert seen[0][secret] != seen[1][secret]
        assert len(seen[0][secret]) >= 16


def test_the_browser_chooses_neither_scope_nor_parameters(client: Client, provider: Provider) -> None:
    asked = begin(client, scope="calendar", auth_params="nonce%3Dmine", action="reauthenticate")
    assert "calendar" not in asked
    assert "nonce=mine" not in asked


def test_the_same_subject_is_another_person_at_another_provider(client: Client, provider: Provider) -> None:
    sign_in(client, provider, "oidc")
    with running_provider() as second, override_settings(SOCIALACCOUNT_PROVIDERS=app_settings(second)):
        sign_in(Client(), second, "oidc")
    assert [one.iss for one in User.objects.order_by("pk")] == [provider.issuer, second.issuer]


def test_the_same_address_is_another_person(client: Client, provider: Provider) -> None:
    local = create_person(email="ana@example.com")
    sign_in(client, provider)
    assert client.session["_auth_user_id"] != str(local.pk)
    assert User.objects.count() == 2


def test_a_person_who_returns_is_the_same_one(client: Client, provider: Provider) -> None:
    for _ in range(2):
        sign_in(client, provider)
        client.post("/sign-out")
    assert User.objects.count() == 1


# --- the flow ---------------------------------------------------------------------------------------------


def test_a_code_counts_once(client: Client, provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    """Taken from another's address bar and sent with a state of one's own."""
    taken = parse_qs(urlsplit(provider.follow(begin(Client()))).query)["code"][0]
    state = parse_qs(urlsplit(begin(client)).query)["state"][0]
    answer = client.get("/accounts/google/login/callback/", {"code": taken, "state": state})
    refused(client, answer, caplog, "refused-by-provider")  # PKCE: the verifier is of another session


def test_a_code_that_was_redeemed_signs_nobody_in_again(
    client: Client, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    back = provider.follow(begin(client))
    code = parse_qs(urlsplit(back).query)["code"][0]
    provider.codes.clear()
    refused(client, client.get(back), caplog, "refused-by-provider")
    assert code not in provider.codes


def test_a_callback_counts_once(client: Client, provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    back = provider.follow(begin(client))
    provider.forge = lambda p, c: p.sign(c | {"email_verified": False})
    client.get(back)
    caplog.clear()
    provider.forge = lambda p, c: p.sign(c)
    refused(client, client.get(back), caplog, "state")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("state={foreign}&code={code}", "state"),
        ("state=&code={code}", "state"),
        ("code={code}", "state"),
        ("state={other_provider}&code={code}", "state"),
        ("state={own}", "provider"),
        ("state={own}&code=", "refused-by-provider"),
        ("state={own}&code=guessed", "refused-by-provider"),
        ("state={own}&code={code}&iss=https://evil.example", "issuer"),
        ("state={own}&code={code}&iss=", "issuer"),
        ("state={own}&error=access_denied", "cancelled"),
        ("state={own}&error=server_error&error_description=%3Cscript%3E", "provider"),
    ],
)
def test_a_hostile_way_back(
    client: Client, provider: Provider, caplog: pytest.LogCaptureFixture, query: str, code: str
) -> None:
    places = {
        "own": parse_qs(urlsplit(begin(client)).query)["state"][0],
        "foreign": parse_qs(urlsplit(begin(Client())).query)["state"][0],
        "other_provider": parse_qs(urlsplit(begin(client, "oidc")).query)["state"][0],
        "code": parse_qs(urlsplit(provider.follow(begin(client))).query)["code"][0],
    }
    refused(client, client.get(f"/accounts/google/login/callback/?{query.format(**places)}"), caplog, code)


def test_a_provider_that_always_names_itself_must(
    client: Client, provider: Provider, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    refused(client, sign_in(client, provider, "oidc"), caplog, "issuer")
    provider.names_itself = provider.issuer
    assert sign_in(client, provider, "oidc")["Location"] == "/"


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({"issuer": "https://evil.example"}, "metadata-issuer"),
        ({"issuer": None}, "metadata-issuer"),
        ({"jwks_uri": "ftp://evil.example/keys"}, "metadata-address"),
        ({"token_endpoint": "file:///etc/passwd"}, "metadata-address"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "metadata-address"),
        ({"authorization_endpoint": "https://user@evil.example/"}, "metadata-address"),
        ({"token_endpoint": None}, "malformed"),
        ({"raw": "[]"}, "malformed"),
        ({"raw": '{"issuer": "a", "issuer": "b"}'}, "malformed"),
        ({"more": "x" * 300_000}, "oversized"),
    ],
)
def test_a_provider_that_is_not_what_the_operator_named(
    client: Client, provider: Provider, caplog: pytest.LogCaptureFixture, metadata: Any, code: str
) -> None:
    provider.metadata = metadata
    refused(client, client.post("/accounts/oidc/login/"), caplog, code)


# --- keys -------------------------------------------------------------------------------------------------


def test_a_new_key_is_fetched_once_a_minute(
    client: Client, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    sign_in(client, provider)
    client.post("/sign-out")
    provider.kid = "next"
    sign_in(client, provider)
    assert "_auth_user_id" not in client.session  # the keys were fetched in this very minute
    cache.delete(cache_key("keys-fetched", f"{provider.issuer}/keys"))  # the minute is over
    for _ in range(3):
        sign_in(client, provider)
        assert client.session["_auth_user_id"]
    provider.forge = lambda p, c: p.sign(c, kid="unknown")
    for _ in range(3):
        sign_in(Client(), provider)
    assert provider.visits.count("/keys") == 2


def _weak_key(**more: Any) -> dict[str, Any]:
    return dict(json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(WEAK.public_key()))) | {"kid": "odd"} | more


def by_weak_key(claims: dict[str, Any]) -> str:
    signed = f"{part({'alg': 'RS256', 'kid': 'odd'})}.{part(claims)}"
    mark = WEAK.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{base64.urlsafe_b64encode(mark).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "keys",
    [
        [_weak_key()],
        [_weak_key(use="enc")],
        [_weak_key(), _weak_key()],
        [{"kid": "odd", "kty": "oct", "k": "c2VjcmV0"}],
        [{"kid": "odd", "kty": "RSA", "n": "", "e": "AQAB"}],
        [{"kid": "odd", "kty": "RSA"}],
        [{"kid": "odd"}],
        ["odd"],
        [{"kid": str(number)} for number in range(200)],
    ],
)
def test_keys_that_do_not_count(
    client: Client, provider: Provider, caplog: pytest.LogCaptureFixture, keys: Any
) -> None:
    provider.extra_keys = keys
    provider.forge = lambda p, c: by_weak_key(c)
    refused(client, sign_in(client, provider), caplog, "malformed" if len(keys) > 100 else "key")


# --- whose people -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("person", "code"),
    [
        ({}, "domain"),
        ({"hd": "evil.example"}, "domain"),
        ({"hd": "example.com.evil.example"}, "domain"),
        ({"hd": ["example.com"]}, "domain"),
        ({"hd": True}, "domain"),
        ({"hd": ""}, "domain"),
        ({"hd": "x" * 300}, "domain"),
    ],
)
def test_a_foreign_domain_stays_outside(
    client: Client,
    provider: Provider,
    caplog: pytest.LogCaptureFixture,
    settings: Any,
    person: Any,
    code: str,
) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = app_settings(provider, domains=["example.com"])
    provider.person |= person
    refused(client, sign_in(client, provider), caplog, code)


def test_the_domain_that_may_come_comes(client: Client, provider: Provider, settings: Any) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = app_settings(provider, domains=["example.com"])
    provider.person["hd"] = "Example.com"
    sign_in(client, provider)
    assert provider.asked[-1]["hd"] == "example.com"
    assert User.objects.count() == 1


@pytest.mark.parametrize(("name", "joined"), [("google", True), ("oidc", False)])
def test_only_google_speaks_for_a_domain(client: Client, provider: Provider, name: str, joined: bool) -> None:
    tailnet, _owner = factories.tailnet(google_domain="example.com")
    provider.person["hd"] = "example.com"
    sign_in(client, provider, name)
    person = User.objects.get(iss=provider.issuer)
    assert (tailnet in [one.tailnet for one in active_memberships(user=person)]) is joined


# --- limits -----------------------------------------------------------------------------------------------


@pytest.fixture
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the limits stands: their minute does not end within the test."""
    now = timezone.now()
    monkeypatch.setattr("accounts.limits.timezone", SimpleNamespace(now=lambda: now))


@pytest.mark.usefixtures("one_minute")
def test_whoever_keeps_failing_is_stopped(client: Client, provider: Provider) -> None:
    provider.forge = lambda p, c: p.sign(c | {"aud": "another"})
    for _ in range(MAX_FAILED_SIGN_INS):
        assert sign_in(client, provider).status_code == 302
    stopped = client.get("/accounts/google/login/callback/?state=x&code=y")
    assert stopped.status_code == 429


@pytest.mark.usefixtures("one_minute")
def test_whoever_keeps_beginning_is_stopped(client: Client, provider: Provider) -> None:
    for _ in range(MAX_SIGN_INS):
        begin(client)
    assert client.post("/accounts/google/login/").status_code == 429


def test_a_provider_that_is_not_set_up_is_not_there(client: Client, settings: Any) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = {}
    for path in ("/accounts/google/login/", "/accounts/oidc/login/", "/accounts/oidc/login/callback/"):
        assert client.get(path).status_code == 404
    for path in ("/accounts/google/login/token/", "/accounts/signup/", "/accounts/password/reset/"):
        assert client.get(path).status_code == 404
