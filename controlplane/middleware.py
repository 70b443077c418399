"""Where a request comes from: the socket's peer, unless that peer is a proxy the operator named."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

from django.http import HttpRequest, HttpResponse

from controlplane.env import environment

MAX_FORWARDED_HOPS = 16


def client_address(peer: str, forwarded_for: str, trusted: Iterable[str]) -> str:
    """The client's address: the last hop of ``X-Forwarded-For`` that no trusted proxy wrote.

    ``peer`` is the socket's peer, ``forwarded_for`` the header (may be empty), ``trusted`` networks in CIDR
    form. A header from an untrusted peer is ignored, so nobody can choose the address that limits count.
    """
    networks = [ipaddress.ip_network(text, strict=False) for text in trusted]

    def is_trusted(text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address.version == network.version and address in network for network in networks)

    current = peer
    hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()][-MAX_FORWARDED_HOPS:]
    while hops and is_trusted(current):
        candidate = hops.pop()
        try:
            ipaddress.ip_address(candidate)
        except ValueError:
            break
        current = candidate
    return current


class TrustedProxyMiddleware:
    """Sets ``REMOTE_ADDR`` to the client's address and drops forwarding headers of untrusted peers."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.trusted = environment().trusted_proxies

    def __call__(self, request: HttpRequest) -> HttpResponse:
        peer = request.META.get("REMOTE_ADDR", "")
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
        address = client_address(peer, forwarded, self.trusted)
        if address == peer:
            request.META.pop("HTTP_X_FORWARDED_FOR", None)
            request.META.pop("HTTP_X_FORWARDED_PROTO", None) if not self._trusted(peer) else None
        request.META["REMOTE_ADDR"] = address
        return self.get_response(request)

    def _trusted(self, peer: str) -> bool:
        return client_address(peer, "192.0.2.1", self.trusted) != peer
