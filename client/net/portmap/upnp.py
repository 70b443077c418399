"""UPnP's Internet Gateway Device as text: how a router is looked for, describes itself, and is told.

Pure. Sources: UPnP Device Architecture 1.1 (§1.3 search, §2 description, §3 control), WANIPConnection:1. What
routers send is read for its tags alone: not all of it is well-formed, and entities are not ours to follow.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape, unescape
from urllib.parse import urljoin, urlsplit

SEARCH_PORT = 1900
SEARCH_GROUP = "239.255.255.250"
GATEWAY_DEVICE = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
# Some answer for what they are first of all, whatever was asked; some only when asked for what they are.
SOUGHT = (GATEWAY_DEVICE, "upnp:rootdevice")
MAX_WAIT_SECONDS = 1  # within which routers shall answer
WAN_SERVICE = re.compile(r"urn:schemas-upnp-org:service:WAN(IP|PPP)Connection:[0-9]")
UDP = "UDP"
CONFLICT, ONLY_PERMANENT = 718, 725  # WANIPConnection:1 §2.4.16
HTTP_PORT = 80
MAX_TAG_CHARS = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is asked for, at the router itself."""

    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Service:
    """One that maps ports: of which kind, and where it is told to."""

    kind: str
    place: Place


def search_request(sought: str) -> bytes:
    """§1.3.2."""
    lines = [
        "M-SEARCH * HTTP/1.1",
        f"HOST: {SEARCH_GROUP}:{SEARCH_PORT}",
        'MAN: "ssdp:discover"',
        f"MX: {MAX_WAIT_SECONDS}",
        f"ST: {sought}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def parse_search(packet: bytes) -> str | None:
    """Where the description of whoever answers is; ``None`` for what is no answer (§1.3.3)."""
    first, *lines = packet.decode("latin-1").split("\r\n")
    if not first.startswith("HTTP/1.") or " 200 " not in f"{first} ":
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "location" and place_of(value.strip()) is not None:
            return value.strip()
    return None


def place_of(url: str, base: str = "") -> Place | None:
    """A URL's place, taken to be the router's whatever host it names; ``None`` for what is not for us."""
    try:
        parts = urlsplit(urljoin(base, url))
        port = parts.port or HTTP_PORT
    except ValueError:
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme != "http" or not path.isascii() or not path.isprintable() or " " in path:
        return None
    return Place(port, path)


def get_request(host: str, place: Place) -> bytes:
    return f"GET {place.path} HTTP/1.1\r\nHost: {host}:{place.port}\r\nConnection: close\r\n\r\n".encode()


def parse_description(text: str, location: str) -> list[Service]:
    """The services of a description (§2.3) that map ports, in its order."""
    base = _first(text, "URLBase") or location
    found = []
    for service in _elements(text, "service"):
        kind = _first(service, "serviceType")
        place = place_of(_first(service, "controlURL"), base)
        if WAN_SERVICE.fullmatch(kind) and place is not None:
            found.append(Service(kind, place))
    return found


def control_request(host: str, service: Service, action: str, arguments: Mapping[str, object]) -> bytes:
    """§3.2.1; the arguments in the order that the service defines."""
    members = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in arguments.items())
    body = (
        '<?xml version="1.0"?>\r\n<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{service.kind}">{members}</u:{action}></s:Body></s:Envelope>\r\n'
    ).encode()
    lines = [
        f"POST {service.place.path} HTTP/1.1",
        f"Host: {host}:{service.place.port}",
        'Content-Type: text/xml; charset="utf-8"',
        f'SOAPAction: "{service.kind}#{action}"',
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def parse_error(text: str) -> int | None:
    """The code of a fault (§3.2.3)."""
    code = _first(text, "errorCode")
    return int(code) if code.isascii() and code.isdigit() and len(code) <= 4 else None


def parse_external_host(text: str) -> str | None:
    """The router's own public IPv4 address, ``None`` when it has none."""
    try:
        host = ipaddress.IPv4Address(_first(text, "NewExternalIPAddress"))
    except ValueError:
        return None
    return None if host.is_unspecified else str(host)


def _elements(text: str, name: str) -> Iterator[str]:
    """What is inside of each element of a name, none of which contains another."""
    for part in re.split(rf"<(?:\w{{1,20}}:)?{name}(?:\s[^>]{{0,{MAX_TAG_CHARS}}})?>", text)[1:]:
        yield re.split(rf"</(?:\w{{1,20}}:)?{name}\s{{0,9}}>", part, maxsplit=1)[0]


def _first(text: str, name: str) -> str:
    return unescape(next(_elements(text, name), "")).strip()
