"""Where a request comes from: the socket's peer, unless that peer is a proxy the operator named."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from time import perf_counter

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware

from controlplane.env import environment
from controlplane.measures import count_request

MAX_FORWARDED_HOPS = 16
# What a proxy adds: the request is not from this host then, though its socket is.
FORWARDED = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP")
DIRECT = "trenza.direct"
API = ("/api/v2/", "/api/trenza/")


def is_trusted_proxy(peer: str, trusted: Iterable[str]) -> bool:
    """Whether ``peer`` (an address as text) lies in one of the ``trusted`` networks (CIDR)."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    networks = (ipaddress.ip_network(text, strict=False) for text in trusted)
    return any(address.version == network.version and address in network for network in networks)


def client_address(peer: str, forwarded_for: str, trusted: Iterable[str]) -> str:
    """The client's address: the last hop of ``X-Forwarded-For`` that no trusted proxy wrote.

    ``peer`` is the socket's peer, ``forwarded_for`` the header (may be empty), ``trusted`` networks in CIDR
    form. A header from an untrusted peer is ignored, so nobody can choose the address that limits count.
    """
    trusted = tuple(trusted)
    current = peer
    hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()][-MAX_FORWARDED_HOPS:]
    while hops and is_trusted_proxy(current, trusted):
        candidate = hops.pop()
        try:
            ipaddress.ip_address(candidate)
        except ValueError:
            break
        current = candidate
    return current


class CompressedPagesMiddleware(GZipMiddleware):
    """Pages and fragments compressed, and nothing else: static files are so already, downloads as well.

    What BREACH reads from the length of compressed answers is not to be had here: the only lasting secret of
    a page, the CSRF token, has another mask in each answer (Django), lengths are blurred by random bytes
    (``GZipMiddleware``), and what is shown once (keys, tokens) answers a POST, which is left as it is.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        is_page = response.get("Content-Type", "").startswith("text/html")
        if request.method != "GET" or not is_page:
            return response
        return super().process_response(request, response)


class MeasuredApiMiddleware:
    """Counts the public API's requests, by what they are answered."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith(API):
            return self.get_response(request)
        begun = perf_counter()
        response = self.get_response(request)
        count_request(request.method or "", response.status_code, perf_counter() - begun)
        return response


class TrustedProxyMiddleware:
    """Sets ``REMOTE_ADDR`` to the client's address and drops forwarding headers of untrusted peers.

    ``META[DIRECT]`` says whether the request came without a proxy, trusted or not.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.trusted = environment().trusted_proxies

    def __call__(self, request: HttpRequest) -> HttpResponse:
        peer = request.META.get("REMOTE_ADDR", "")
        request.META[DIRECT] = not any(name in request.META for name in FORWARDED)
        if is_trusted_proxy(peer, self.trusted):
            forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
            request.META["REMOTE_ADDR"] = client_address(peer, forwarded, self.trusted)
        else:
            request.META.pop("HTTP_X_FORWARDED_FOR", None)
            request.META.pop("HTTP_X_FORWARDED_PROTO", None)
        return self.get_response(request)
