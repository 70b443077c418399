"""Requests to addresses that people typed: never to what only this server can reach, unless allowed.

A name is resolved once, every address it has is judged, and the connection goes to one of those: a name
that answers otherwise a moment later (DNS rebinding) gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from urllib.parse import quote, urlsplit

TIMEOUT_SECONDS = 10.0  # of one wait
WHOLE_SECONDS = 15.0
MAX_URL = 500
MAX_READ = 1000  # bytes of an answer
PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
SHARED = ipaddress.ip_network("100.64.0.0/10")  # tailnet addresses, and carriers' NAT
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # of IPv6, all that anybody has been given (RFC 4291)
NAT64 = ipaddress.ip_network("64:ff9b::/96")
SIX_TO_FOUR = ipaddress.ip_network("2002::/16")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]


class NotAllowed(Exception):
    """The address must not be asked; the text says why."""


class NoAnswer(Exception):
    """The request failed and may succeed another time."""


def resolve(host: str, port: int) -> list[str]:
    """Every address of a name, each once; raises ``OSError``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def is_public(text: str) -> bool:
    """Whether an address is of the public internet; so must one be that it hides (mapped, NAT64, 6to4)."""
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return is_public(str(inner))
        if address not in GLOBAL_UNICAST:  # Python calls more global: site-local, a network's own NAT64
            return False
    return address.is_global and not address.is_multicast and address not in SHARED


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in SIX_TO_FOUR:
        return address.sixtofour
    return None


def check_url(url: str, *, private: bool) -> str:
    """The URL, if its form is one that may be asked; raises :class:`NotAllowed`.

    What its name leads to is judged when it is asked (:func:`post`), for that may change.
    """
    url = url.strip()
    if len(url) > MAX_URL or any(character <= " " or character == "\x7f" for character in url):
        raise NotAllowed("this is not a web address")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise NotAllowed("this is not a web address") from error
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        raise NotAllowed("give an address that begins with https://")
    if parts.scheme == "http" and not private:
        raise NotAllowed(
            "give an address that begins with https://: what is sent must not be read on the way"
        )
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise NotAllowed("leave out user names, passwords and #parts")
    if not private and parts.hostname.rstrip(".").rpartition(".")[2] in (
        "localhost",
        "internal",
        "local",
        "test",
    ):
        raise NotAllowed("this name leads nowhere on the public internet")
    return url


class _To:
    """Connects to one address, whatever the name is looked up to meanwhile."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __call__(
        self, where: tuple[str, int], timeout: float | None = None, source: tuple[str, int] | None = None
    ) -> socket.socket:
        return socket.create_connection((self.address, where[1]), timeout, source)


def post(
    url: str, body: bytes, headers: dict[str, str], *, private: bool, resolver: Resolve = resolve
) -> int:
    """POST and return the status; raises :class:`NotAllowed` or :class:`NoAnswer`."""
    parts = urlsplit(check_url(url, private=private))
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    try:
        addresses = resolver(host, port)
    except (OSError, UnicodeError) as error:
        raise NoAnswer(f"{host} has no address") from error
    if not addresses:
        raise NoAnswer(f"{host} has no address")
    if not private and not all(is_public(address) for address in addresses):
        raise NotAllowed(f"{host} leads to an address that is not of the public internet")
    connection = _connection(host, port, addresses[0], secure=secure)
    # Each wait has its end, and so has their sum: an answer that comes byte by byte must not hold up others.
    whole = threading.Timer(WHOLE_SECONDS, _cut, [connection])
    whole.daemon = True
    whole.start()
    try:
        connection.request("POST", _target(parts.path, parts.query), body, headers)
        answer = connection.getresponse()
        answer.read(MAX_READ)
        return answer.status
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(str(error) or "no answer") from error
    finally:
        whole.cancel()
        connection.close()


def _cut(connection: http.client.HTTPConnection) -> None:
    if (made := connection.sock) is not None:
        with contextlib.suppress(OSError):
            made.shutdown(socket.SHUT_RDWR)


def _target(path: str, query: str) -> str:
    """As it was typed; what HTTP takes no letters of (RFC 3986 section 2.1) is encoded."""
    return quote((path or "/") + (f"?{query}" if query else ""), safe=PRINTABLE)


def _connection(host: str, port: int, address: str, *, secure: bool) -> http.client.HTTPConnection:
    if secure:
        context = ssl.create_default_context()
        made: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT_SECONDS, context=context
        )
    else:
        made = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    made._create_connection = _To(address)  # type: ignore[attr-defined]
    return made
