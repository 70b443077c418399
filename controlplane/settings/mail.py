"""``TRENZA_EMAIL_URL``: ``smtp://USER:PASSWORD@HOST:587?from=ADDRESS`` and its kin, for Django's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from controlplane.env import EnvironmentProblem

TIMEOUT_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Security:
    """A scheme's usual port, TLS from the start, STARTTLS."""

    port: int
    tls: bool = False
    starttls: bool = False


SCHEMES = {
    "smtp": Security(587, starttls=True),
    "smtps": Security(465, tls=True),
    "smtp+plain": Security(25),  # for a server on this very host
}


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in, and from whom it is. An empty ``host``: nowhere."""

    sender: str
    host: str = ""
    security: Security = SCHEMES["smtp"]
    user: str = ""
    password: str = field(default="", repr=False)


def mail_server(url: str | None, own_host: str) -> MailServer:
    """The server of a URL; raises ``EnvironmentProblem``. ``own_host`` names the sender by default."""
    sender = f"trenza@{own_host}"
    if not url:
        return MailServer(sender)
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise EnvironmentProblem(
            "TRENZA_EMAIL_URL is like smtp://user:password@mail.example.com:587?from=vpn@example.com"
        )
    usual = SCHEMES[parts.scheme]
    return MailServer(
        sender=parse_qs(parts.query).get("from", [sender])[0],
        host=parts.hostname,
        security=Security(parts.port or usual.port, usual.tls, usual.starttls),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
    )
