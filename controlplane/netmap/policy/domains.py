"""Domains of logins, as in ``user:*@example.com`` and ``localpart:*@example.com``. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.subjects import domain_of

# Who has an address there is nobody in particular: no rule is for all of them.
SHARED_DOMAINS = frozenset(
    {
        "gmail.com",
        "googlemail.com",
        "outlook.com",
        "hotmail.com",
        "live.com",
        "msn.com",
        "icloud.com",
        "me.com",
        "mac.com",
        "yahoo.com",
        "aol.com",
        "gmx.com",
        "gmx.net",
        "gmx.de",
        "web.de",
        "mail.com",
        "proton.me",
        "protonmail.com",
        "pm.me",
        "zoho.com",
        "yandex.com",
        "yandex.ru",
        "mail.ru",
        "qq.com",
        "163.com",
        "fastmail.com",
        "hey.com",
        "github",
        "passkey",
    }
)


def require_domain(domain: str, logins: Iterable[str], offset: int | None = None) -> None:
    """Refuse a domain that is not that of somebody in the tailnet, or is anybody's."""
    domain = domain.lower()
    if domain in SHARED_DOMAINS or all(domain_of(login) != domain for login in logins):
        raise PolicyError(
            f"{domain} is not associated with this Tailnet and cannot be used in user:*@<domain> expressions",
            offset,
        )
