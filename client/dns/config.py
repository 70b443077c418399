"""What the resolver knows, made of a netmap: hosts, zones answered here, and whom to ask for the rest. Pure.

Source: tailscale ipn/ipnlocal/node_backend.go (dnsConfigForNetmap).
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self
from urllib.parse import urlsplit

from client.dns.names import PORT, REVERSE_ZONES, ancestors, normal
from client.net.serviceaddresses import SERVICE_ADDRESSES
from client.prefixes import IPAddress, tailnet_addresses
from wire.errors import MessageError
from wire.fields import lower_names, objects
from wire.netmap import NetMap, Node, Resolver

AAAA_CAPABILITY = "magicdns-aaaa"
MAX_ROUTES = 1000
MAX_UPSTREAMS = 8  # of one suffix: more would only make a failure slower
MAX_RECORDS = 10_000
MAX_SEARCH_DOMAINS = 64
PEER_API4 = "peerapi4"
PEER_API_DNS = "peerapi-dns-proxy"
DOH_PATH = "/dns-query"


@dataclass(frozen=True, slots=True)
class Upstream:
    """Somebody to ask: an address and port, or a DoH ``url`` with the addresses that its host has.

    ``marked`` = its packets must leave outside the tunnel.
    """

    host: str
    port: int = PORT
    url: str = ""
    bootstrap: tuple[str, ...] = ()
    marked: bool = False

    @classmethod
    def parse(cls, text: str, bootstrap: Iterable[str] = ()) -> Self | None:
        """``1.1.1.1``, ``1.1.1.1:5353``, ``[::1]:53``, ``https://host/path``; ``None`` for anything else."""
        if "://" in text:
            return cls._of_url(text, bootstrap)
        host, port = text, PORT
        if text.startswith("["):
            host, closed, rest = text[1:].partition("]")
            number = (rest.removeprefix(":") if rest else str(PORT)) if closed else ""
        elif text.count(":") == 1:
            host, _, number = text.partition(":")
        else:
            number = str(PORT)
        if not number.isdecimal() or not number.isascii() or not 0 < (port := int(number[:6])) <= 65535:
            return None
        address = _address(host)
        return None if address is None or str(address) in SERVICE_ADDRESSES else cls(str(address), port)

    @classmethod
    def _of_url(cls, text: str, bootstrap: Iterable[str]) -> Self | None:
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return None
        to_peer = parts.scheme == "http" and any(tailnet_addresses([_host_prefix(host)]))
        if not (parts.scheme == "https" or to_peer) or not host or not text.isprintable() or " " in text:
            return None
        known = tuple(str(address) for address in map(_address, bootstrap) if address is not None)
        default = 443 if parts.scheme == "https" else 80
        return cls(host, port or default, url=text, bootstrap=known)

    def __str__(self) -> str:
        if self.url:
            return self.url
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORT and not host.startswith("[") else f"{host}:{self.port}"


Upstreams = tuple[Upstream, ...]


@dataclass(frozen=True)
class Config:
    """``hosts`` and ``reverse`` are what is known here. A suffix in ``routes`` without upstreams is answered
    here alone; ``default`` is for names under no route, ``base`` are the resolvers that the host had before.

    ``default`` ``None`` = ask ``base``, and ``fallback`` where the host has none. ``infrastructure`` are the
    names that the tunnel itself needs.
    ``hidden``: an exit node is in use, the network around this host should hear of no other name.
    """

    hosts: Mapping[str, tuple[IPAddress, ...]] = field(default_factory=dict)
    reverse: Mapping[IPAddress, str] = field(default_factory=dict)
    routes: Mapping[str, Upstreams] = field(default_factory=dict)
    default: Upstreams | None = None
    base: Upstreams = ()
    fallback: Upstreams = ()
    search: tuple[str, ...] = ()
    infrastructure: frozenset[str] = frozenset()
    hidden: bool = False

    @property
    def is_empty(self) -> bool:
        """Nothing here that the host's own DNS would not do as well."""
        return not self.hosts and not self.routes and self.default is None

    @property
    def takes_all(self) -> bool:
        """Whether every name of the host is to be asked here, not only those under the routes."""
        return self.default is not None

    @cached_property
    def match_domains(self) -> tuple[str, ...]:
        """The suffixes that are asked here at least: the routes, and hosts that lie under none."""
        alone = (name for name in self.hosts if not any(up in self.routes for up in ancestors(name)))
        return tuple(sorted({*self.routes, *alone} - {""}))

    @cached_property
    def parents(self) -> frozenset[str]:
        """Names above hosts: they exist, without records."""
        return frozenset(up for name in self.hosts for up in ancestors(name)[1:])

    def upstreams(self, name: str) -> Upstreams | None:
        """Whom to ask for ``name``, by the longest suffix; ``None`` = its zone is answered here alone."""
        if name in self.infrastructure and self.base:
            return self.base
        for suffix in ancestors(name):
            if suffix in self.routes:
                return self.routes[suffix] or None
        return self.everywhere

    @property
    def everywhere(self) -> Upstreams:
        """Whom to ask for names under no route."""
        return (self.base or self.fallback) if self.default is None else self.default

    def with_base(self, base: Upstreams) -> Self:
        """The same with other resolvers of the host; their packets never enter the tunnel."""
        return replace(self, base=tuple(replace(one, marked=True) for one in base))


def make_config(
    netmap: NetMap,
    *,
    hidden: bool = False,
    exit_node: Node | None = None,
    infrastructure: Iterable[str] = (),
) -> Config:
    """The resolver's configuration under a netmap. ``hidden``: an exit node is wanted, present or not.

    While an exit node is in use nothing is asked of the host's own resolvers: the network around it should
    not hear names. Only the names that the tunnel itself needs are left to them, for it could not begin.
    """
    dns = netmap.dns_config
    hosts, reverse = _nodes(netmap) if dns.proxied else ({}, {})
    _add_records(hosts, netmap)
    routes: dict[str, Upstreams] = {zone: () for zone in local_zones(netmap)}  # noqa: C420 - the types differ
    routes |= _routes(netmap, hidden)
    default = _default(netmap, hidden, exit_node)
    everything = routes.pop("", ())  # a route of the root is a default
    names = frozenset(name for text in infrastructure if (name := normal(text)))
    return Config(
        hosts=hosts,
        reverse=reverse,
        routes=routes,
        default=(everything or None) if default is None else default,
        fallback=_upstreams(dns.fallback_resolvers),
        search=_search(dns.domains),
        infrastructure=names - hosts.keys(),
        hidden=hidden,
    )


def same_names(before: NetMap, after: NetMap) -> bool:
    """Whether two netmaps give the same configuration: far cheaper than making both."""
    if before.dns_config != after.dns_config or before.peers.keys() != after.peers.keys():
        return False
    nodes = [(before.node, after.node), *((before.peers[one], peer) for one, peer in after.peers.items())]
    return all(old is new or _told(old) == _told(new) for old, new in nodes)


def _told(node: Node) -> tuple[object, ...]:
    """What of a node this package looks at."""
    return node.name, node.addresses, node.cap_map, node.hostinfo


def local_zones(netmap: NetMap) -> tuple[str, ...]:
    """The zones that MagicDNS answers alone: the tailnet's suffix and its addresses' reverse trees."""
    suffix = normal(netmap.magic_dns_suffix)
    if not netmap.dns_config.proxied:
        return ()
    return (*((suffix,) if suffix else ()), *REVERSE_ZONES)


def _nodes(netmap: NetMap) -> tuple[dict[str, tuple[IPAddress, ...]], dict[IPAddress, str]]:
    hosts: dict[str, tuple[IPAddress, ...]] = {}
    reverse: dict[IPAddress, str] = {}
    both = AAAA_CAPABILITY in netmap.node.cap_map
    only6 = not any(address.version == 4 for address in tailnet_addresses(netmap.node.addresses))
    for node in (*netmap.peers.values(), netmap.node):
        name = normal(node.name)
        if not name:
            continue
        addresses = tuple(tailnet_addresses(node.addresses))
        hosts[name] = _shown(addresses, both=both, only6=only6)
        reverse |= dict.fromkeys(addresses, name)
    return hosts, reverse


def _shown(addresses: tuple[IPAddress, ...], *, both: bool, only6: bool) -> tuple[IPAddress, ...]:
    """What a peer's name stands for: IPv4 alone where there is one, for programs try IPv6 first and wait."""
    four = tuple(address for address in addresses if address.version == 4)
    if both or not four:
        return addresses
    six = tuple(address for address in addresses if address.version == 6)
    return six if only6 and six else four


def _add_records(hosts: dict[str, tuple[IPAddress, ...]], netmap: NetMap) -> None:
    for record in netmap.dns_config.extra_records[:MAX_RECORDS]:
        members = lower_names(record)
        if members.get("type", "") not in ("", "A", "AAAA"):
            continue
        name, address = normal(str(members.get("name", ""))), _address(str(members.get("value", "")))
        if name and address is not None and address not in hosts.get(name, ()):
            hosts[name] = (*hosts.get(name, ()), address)


def _routes(netmap: NetMap, hidden: bool) -> dict[str, Upstreams]:
    """Split DNS; with an exit node only what the tailnet wants asked even then."""
    routes: dict[str, Upstreams] = {}
    for suffix, resolvers in list(netmap.dns_config.routes.items())[:MAX_ROUTES]:
        name = normal(suffix)
        kept = _with_exit_node(resolvers) if hidden else resolvers
        if name is None or (resolvers and not kept):
            continue
        routes[name] = _upstreams(kept)
    return routes


def _default(netmap: NetMap, hidden: bool, exit_node: Node | None) -> Upstreams | None:
    resolvers = netmap.dns_config.resolvers
    if not hidden:
        return _upstreams(resolvers) or None
    if chosen := _upstreams(_with_exit_node(resolvers)):
        return chosen
    if exit_node is not None and (proxy := exit_node_dns(exit_node)) is not None:
        return (proxy,)
    return _upstreams(resolvers) or _upstreams(netmap.dns_config.fallback_resolvers)


def exit_node_dns(node: Node) -> Upstream | None:
    """The DNS that an exit node serves to those who use it; ``None`` when it does not."""
    try:
        services = objects(lower_names(node.hostinfo), "services", 1000)
    except MessageError:
        return None
    ports: dict[str, int] = {}
    for service in services:
        members = lower_names(service)
        protocol, port = members.get("proto"), members.get("port")
        if isinstance(protocol, str) and isinstance(port, int) and 0 < port <= 65535:
            ports[protocol] = port
    address = next((one for one in tailnet_addresses(node.addresses) if one.version == 4), None)
    if PEER_API_DNS not in ports or PEER_API4 not in ports or address is None:
        return None
    return Upstream.parse(f"http://{address}:{ports[PEER_API4]}{DOH_PATH}")


def _with_exit_node(resolvers: Iterable[Resolver]) -> tuple[Resolver, ...]:
    return tuple(resolver for resolver in resolvers if resolver.use_with_exit_node)


def _upstreams(resolvers: Iterable[Resolver]) -> Upstreams:
    """Those that can be asked; what a server wrote wrongly is left out."""
    parsed = (Upstream.parse(resolver.address, resolver.bootstrap) for resolver in resolvers)
    found = dict.fromkeys(one for one in parsed if one is not None)
    return tuple(found)[:MAX_UPSTREAMS]


def _search(domains: Iterable[str]) -> tuple[str, ...]:
    names = dict.fromkeys(name for domain in domains if (name := normal(domain)))
    return tuple(names)[:MAX_SEARCH_DOMAINS]


def _address(text: str) -> IPAddress | None:
    if "%" not in text:
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(text)
    return None


def _host_prefix(host: str) -> str:
    return f"{host}/128" if ":" in host else f"{host}/32"
