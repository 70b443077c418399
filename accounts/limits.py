"""How often one address, or one thing, may have us do what costs or helps a guesser.

Counted in the cache, per minute.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime

from django.core.cache import cache
from django.http import HttpRequest
from django.utils import timezone

from accounts.errors import LimitExceeded

WINDOW_SECONDS = 60
NO_ADDRESS = "0.0.0.0"  # noqa: S104 - of a request that came through no socket
IPV6_SITE_BITS = 64


def bucket(address: str) -> str:
    """What is counted as one place: an IPv4 address, or an IPv6 /64, which one host can fill at will."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address or "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, IPV6_SITE_BITS), strict=False))
    return str(parsed)


def _key(kind: str, address: str, now: datetime) -> tuple[str, int]:
    window, passed = divmod(int(now.timestamp()), WINDOW_SECONDS)
    return f"limit.{kind}.{bucket(address).replace('/', '-')}.{window}", WINDOW_SECONDS - passed


def check_limit(kind: str, address: str, *, limit: int, now: datetime | None = None) -> None:
    """Raise :class:`LimitExceeded` when this minute's ``limit`` is used up; counts nothing.

    ``address`` is a client's, or the id of what the limit is of.
    """
    key, left = _key(kind, address, now or timezone.now())
    if int(cache.get(key, 0)) >= limit:
        raise LimitExceeded(f"too many attempts: try again in {left} s", retry_after=left)


def count_attempt(kind: str, address: str, *, now: datetime | None = None) -> None:
    """Count one attempt of this kind."""
    key, _left = _key(kind, address, now or timezone.now())
    if not cache.add(key, 1, timeout=WINDOW_SECONDS * 2):
        try:
            cache.incr(key)
        except ValueError:  # it ran out between the two calls
            cache.set(key, 1, timeout=WINDOW_SECONDS * 2)


def address_of(request: HttpRequest) -> str:
    """The client's address, as the middleware that knows the trusted proxies has left it."""
    return str(request.META.get("REMOTE_ADDR", ""))
