"""A small OpenID provider on a real socket, which a test may have forge whatever it wants."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CLIENT_ID, CLIENT_SECRET = "trenza-test", "the-secret:+/%"
Forge = Callable[["Provider", dict[str, Any]], "str | dict[str, Any]"]
PERSON = {
    "sub": "1001",
    "email": "ana@example.com",
    "email_verified": True,
    "name": "Ana Gómez",
}


def part(document: str | Mapping[str, Any]) -> str:
    """One part of a compact token."""
    text = document if isinstance(document, str) else json.dumps(document)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


class Provider:
    """Its keys, the people it knows and the codes it has given; ``forge`` makes the next ID token."""

    def __init__(self) -> None:
        self.rsa, self.ec = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
        self.be_honest()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def be_honest(self) -> None:
        """As it is when nobody has it forge anything; what was asked of it is forgotten."""
        self.kid = "now"
        self.person: dict[str, Any] = dict(PERSON)
        self.forge: Forge = lambda provider, claims: provider.sign(claims)
        self.metadata: dict[str, Any] = {}  # what it says otherwise than it is
        self.extra_keys: list[dict[str, Any]] = []
        self.names_itself = ""  # the ``iss`` beside the code
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[dict[str, str]] = []  # authorization requests
        self.visits: list[str] = []  # paths that were fetched

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    # --- tokens ------------------------------------------------------------------------------------------

    def sign(
        self, claims: Mapping[str, Any] | str, algorithm: str = "RS256", key: Any = None, **header: Any
    ) -> str:
        """A token with whatever payload and header, signed by the provider's key unless by another."""
        payload = claims if isinstance(claims, str) else json.dumps(claims)
        own = self.ec if algorithm == "ES256" else self.rsa
        names = {"kid": self.kid if algorithm != "ES256" else f"{self.kid}-ec", "typ": "JWT"} | header
        kept = {name: value for name, value in names.items() if value is not None}
        return jwt.PyJWS().encode(payload.encode(), key or own, algorithm, headers=kept)

    def jwks(self) -> dict[str, Any]:
        public = [
            (jwt.algorithms.RSAAlgorithm, self.rsa, "RS256", self.kid),
            (jwt.algorithms.ECAlgorithm, self.ec, "ES256", f"{self.kid}-ec"),
        ]
        return {
            "keys": [
                json.loads(kind.to_jwk(key.public_key())) | {"kid": kid, "use": "sig", "alg": alg}
                for kind, key, alg, kid in public
            ]
            + self.extra_keys
        }

    def claims(self, nonce: str) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
        } | self.person

    # --- endpoints ---------------------------------------------------------------------------------------

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        } | self.metadata

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser is sent with its code; nobody is asked anything."""
        self.asked.append(query)
        code = secrets.token_urlsafe(12)
        self.codes[code] = query
        answer = {"code": code, "state": query["state"]}
        said = {"iss": self.names_itself} if self.names_itself else {}
        return f"{query['redirect_uri']}?{urlencode(answer | said)}"

    def redeem(self, form: dict[str, str]) -> dict[str, Any] | None:
        """The tokens for a code: once, for the client, address and PKCE verifier that it was made for."""
        query = self.codes.pop(form.get("code", ""), None)
        if query is None or form.get("client_secret") != CLIENT_SECRET or form["client_id"] != CLIENT_ID:
            return None
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if query["code_challenge"] != challenge or query["redirect_uri"] != form["redirect_uri"]:
            return None
        made = self.forge(self, self.claims(query.get("nonce", "")))
        answer = {"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 300}
        return made if isinstance(made, dict) else answer | {"id_token": made}

    def follow(self, location: str) -> str:
        """Go where the panel sent the browser; returns the path and query to come back to."""
        parts = urlsplit(location)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.issuer}/authorize"
        back = urlsplit(self.authorize(dict(parse_qsl(parts.query))))
        return f"{back.path}?{back.query}"


def _basic(header: str) -> dict[str, str]:
    """Name and secret from Basic credentials, if these are what the client sent."""
    if not header.startswith("Basic "):
        return {}
    name, _, secret = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
    return {"client_id": unquote(name), "client_secret": unquote(secret)}


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            provider.visits.append(parts.path)
            documents = {"/.well-known/openid-configuration": provider.discovery, "/keys": provider.jwks}
            if parts.path == "/authorize":
                self.send_response(302)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                self.send_header("Location", provider.authorize(query))
                self.end_headers()
            elif parts.path in documents:
                self._answer(200, documents[parts.path]())
            elif parts.path == "/userinfo":
                self._answer(200, provider.person)
            else:
                self._answer(404, {})

        def do_POST(self) -> None:
            provider.visits.append(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = dict(parse_qsl(body)) | _basic(self.headers.get("Authorization", ""))
            answer = provider.redeem(form) if self.path == "/token" else None
            self._answer(400 if answer is None else 200, answer or {"error": "invalid_grant"})

        def _answer(self, status: int, document: Mapping[str, Any]) -> None:
            # A text stands for itself: a document that no dictionary could be.
            body = (document.get("raw") or json.dumps(document)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quietly."""

    return Handler


@contextmanager
def running_provider() -> Iterator[Provider]:
    provider = Provider()
    try:
        yield provider
    finally:
        provider.close()


def app_settings(provider: Provider, **more: Any) -> dict[str, Any]:
    """``SOCIALACCOUNT_PROVIDERS`` in which the provider stands in for Google, and for another one as well."""
    app = {"client_id": CLIENT_ID, "secret": CLIENT_SECRET, "settings": {"issuer": provider.issuer} | more}
    return {"google": {"APPS": [app]}, "oidc": {"APPS": [app | {"name": "Example ID"}]}}
