"""The server's environment, read once, typed, and refused with one clear line when it is wrong.

Every variable is listed in the README's table of settings, but for ``TRENZA_WORKER``, which ``serve`` sets
for its own workers. Nothing else in the server reads ``os.environ``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from urllib.parse import urlsplit

CHECKOUT = Path(__file__).resolve().parent.parent
DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_LISTEN = "127.0.0.1:8080"
GOOGLE_ISSUER = "https://accounts.google.com"
DEFAULT_RELAY_PORT = 3340
DEFAULT_STUN_PORT = 3478
SECRET_KEY_BYTES = 48
PROVIDER_NAMES = {
    "Google": ("GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET"),
    "an OpenID provider": ("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"),
}
UNUSABLE = 78  # exit status (sysexits.h EX_CONFIG) of a worker that another start would not help


class EnvironmentProblem(Exception):
    """A setting that cannot be used; the message says which one and what to write instead."""


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where a socket listens: a literal IP address or host name, and a port (0 = any free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, name: str) -> HostPort:
        host, colon, port = text.rpartition(":")
        host = host.strip("[]")
        if not colon or not host or not port.isdigit() or not 0 <= int(port) <= 65535:
            raise EnvironmentProblem(f"{name}={text!r} is not HOST:PORT; write for example 127.0.0.1:8080")
        return cls(host, int(port))


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What the operator decided. Paths are absolute; ``None`` means "not set up"."""

    url: str
    listen: HostPort
    data: Path
    base_domain: str
    tls_cert: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ()
    owner: str = "owner@localhost"
    google_client_id: str | None = None
    google_client_secret: str | None = field(default=None, repr=False)
    google_issuer: str = GOOGLE_ISSUER
    google_domains: tuple[str, ...] = ()
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: str | None = field(default=None, repr=False)
    oidc_name: str = "OpenID"
    oidc_groups_claim: str = ""
    email_url: str | None = field(default=None, repr=False)
    webhook_private: bool = False
    database_url: str | None = field(default=None, repr=False)
    redis_url: str | None = field(default=None, repr=False)
    relay_listen: HostPort | None = None
    relay_stun: HostPort | None = None
    relay_host: str = "127.0.0.1"
    relay_port: int | None = None  # what clients are told; None: the one on which the relay listens
    relay_tls: bool = True
    relay_token: str | None = field(default=None, repr=False)
    metrics_token: str | None = field(default=None, repr=False)
    worker: int | None = None  # a web worker's place among those of ``serve``, which tells it
    secret_key_override: str | None = field(default=None, repr=False)
    debug: bool = False

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def secure(self) -> bool:
        """Whether people reach the panel over https, which decides cookies, redirects and HSTS."""
        return self.scheme == "https"

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def measures(self) -> Path:
        """Where web workers keep what they count, for one another."""
        return self.data / "measures"

    @property
    def scaled(self) -> bool:
        return self.redis_url is not None

    @cached_property
    def secret_key(self) -> str:
        return self.secret_key_override or read_or_make_secret(
            self.data / "secret_key", lambda: secrets.token_urlsafe(SECRET_KEY_BYTES)
        )


def read_or_make_secret(path: Path, make: Callable[[], str]) -> str:
    """A secret kept in DATA (0600), made at the first start.

    Several processes may start at once: the file appears whole, and whoever was first decides.
    """
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(make() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
    return path.read_text().strip()


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise EnvironmentProblem(
            f"TRENZA_URL={text!r} is not a base URL; write for example https://vpn.example.com "
            f"or {DEFAULT_URL}"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _issuer(text: str, name: str, url: str) -> str:
    """An OpenID issuer. A plain one could be anybody on the way, so it must be this host's own, or the panel
    must be as plain itself (a trial in one network)."""
    parts = urlsplit(text)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1") or urlsplit(url).scheme == "http"
    if not parts.hostname or parts.query or parts.scheme not in (("http", "https") if local else ("https",)):
        raise EnvironmentProblem(
            f"{name}={text!r} is not an issuer; write for example https://id.example.com"
        )
    return text


def _same_issuer(one: str, other: str) -> bool:
    """Whether two spellings lead to one provider: case of the host and a slash at the end do not tell."""
    first, second = (urlsplit(text) for text in (one, other))
    return (first.netloc.lower(), first.path.rstrip("/")) == (second.netloc.lower(), second.path.rstrip("/"))


def _domains(text: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in text.split(",") if part.strip())


def _relay_host(text: str) -> tuple[str, int | None]:
    """``HOST`` or ``HOST:PORT``; an IPv6 address with a port stands in brackets."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text.strip("[]"))), None
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, None
    is_port = port.isascii() and port.isdigit() and 0 < int(port) <= 65535
    if not host or not is_port or (":" in host and not host.startswith("[")):
        raise EnvironmentProblem(
            f"TRENZA_RELAY_HOST={text!r} is not HOST or HOST:PORT; write for example relay.example.com:443"
        )
    return host.strip("[]"), int(port)


def _switch(text: str, name: str) -> bool:
    words = {"on": True, "1": True, "true": True, "off": False, "0": False, "false": False}
    if text.lower() not in words:
        raise EnvironmentProblem(f"{name}={text!r} is neither on nor off")
    return words[text.lower()]


def _proxies(text: str) -> tuple[str, ...]:
    networks = tuple(part.strip() for part in text.split(",") if part.strip())
    for network in networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError as error:
            raise EnvironmentProblem(
                f"TRENZA_TRUSTED_PROXIES has {network!r}; write addresses or networks such as 10.0.0.0/8"
            ) from error
    return networks


def parse_environment(variables: Mapping[str, str]) -> Environment:
    """Turn environment variables into an :class:`Environment`; raises :class:`EnvironmentProblem`."""

    def get(name: str) -> str | None:
        return variables.get(f"TRENZA_{name}") or None

    url = _url(get("URL") or DEFAULT_URL)
    host = urlsplit(url).hostname or ""
    base_domain = (get("BASE_DOMAIN") or "tailnet.internal").strip(".").lower()
    if host == base_domain or host.endswith(f".{base_domain}"):
        raise EnvironmentProblem(
            f"TRENZA_BASE_DOMAIN={base_domain} contains the server's own name {host}: clients could not find "
            "the server any more; choose another domain"
        )
    cert, key = get("TLS_CERT"), get("TLS_KEY")
    if bool(cert) != bool(key):
        raise EnvironmentProblem("TRENZA_TLS_CERT and TRENZA_TLS_KEY go together; set both or neither")
    oidc = get("OIDC_ISSUER")
    for provider, names in PROVIDER_NAMES.items():
        given = [name for name in names if get(name)]
        if given and len(given) != len(names):
            every = " and ".join(f"TRENZA_{name}" for name in names)
            raise EnvironmentProblem(f"sign-in by {provider} needs {every}; set all of them or none")
    google_issuer = _issuer(get("GOOGLE_ISSUER") or GOOGLE_ISSUER, "TRENZA_GOOGLE_ISSUER", url)
    if oidc and get("GOOGLE_CLIENT_ID") and _same_issuer(oidc, google_issuer):
        raise EnvironmentProblem(
            f"TRENZA_OIDC_ISSUER={oidc!r} is the provider that TRENZA_GOOGLE_CLIENT_ID stands for already: "
            "one person would be two; set up one of them"
        )
    relay_listen, relay_stun = get("RELAY_LISTEN"), get("RELAY_STUN")
    relay_host, relay_port = _relay_host(get("RELAY_HOST") or host)
    worker = get("WORKER") or ""
    return Environment(
        url=url,
        listen=HostPort.parse(get("LISTEN") or DEFAULT_LISTEN, "TRENZA_LISTEN"),
        data=Path(get("DATA") or CHECKOUT / "var").absolute(),
        base_domain=base_domain,
        tls_cert=Path(cert) if cert else None,
        tls_key=Path(key) if key else None,
        trusted_proxies=_proxies(get("TRUSTED_PROXIES") or ""),
        owner=get("OWNER") or "owner@localhost",
        google_client_id=get("GOOGLE_CLIENT_ID"),
        google_client_secret=get("GOOGLE_CLIENT_SECRET"),
        google_issuer=google_issuer,
        google_domains=_domains(get("GOOGLE_DOMAINS") or ""),
        oidc_issuer=_issuer(oidc, "TRENZA_OIDC_ISSUER", url) if oidc else None,
        oidc_client_id=get("OIDC_CLIENT_ID"),
        oidc_client_secret=get("OIDC_CLIENT_SECRET"),
        oidc_name=get("OIDC_NAME") or "OpenID",
        oidc_groups_claim=get("OIDC_GROUPS_CLAIM") or "",
        email_url=get("EMAIL_URL"),
        webhook_private=_switch(get("WEBHOOK_PRIVATE") or "off", "TRENZA_WEBHOOK_PRIVATE"),
        database_url=variables.get("DATABASE_URL") or None,
        redis_url=variables.get("REDIS_URL") or None,
        relay_listen=HostPort.parse(relay_listen, "TRENZA_RELAY_LISTEN") if relay_listen else None,
        relay_stun=HostPort.parse(relay_stun, "TRENZA_RELAY_STUN") if relay_stun else None,
        relay_host=relay_host,
        relay_port=relay_port,
        relay_tls=_switch(get("RELAY_TLS") or "on", "TRENZA_RELAY_TLS"),
        relay_token=get("RELAY_TOKEN"),
        metrics_token=get("METRICS_TOKEN"),
        worker=int(worker) if worker.isdigit() else None,
        secret_key_override=get("SECRET_KEY"),
        debug=_switch(get("DEBUG") or "off", "TRENZA_DEBUG"),
    )


@lru_cache(maxsize=1)
def environment() -> Environment:
    """This process's environment, parsed once."""
    return parse_environment(os.environ)
