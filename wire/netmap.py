"""The network map: what a node is told of itself, its peers and its network.

:class:`MapResponse` is one message of the map stream, :class:`NetMap` what a client has made of all so far.
Source: tailscale tailcfg/tailcfg.go, control/controlclient/map.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from wire.control import PingRequest, disco_key, format_time, node_key, parse_time
from wire.derpmap import DERPMap
from wire.errors import MessageError
from wire.fields import (
    Fields,
    as_objects,
    boolean,
    decimal,
    integer,
    lower_names,
    mapping,
    objects,
    string,
    strings,
)
from wire.keys import DiscoPublic, NodePublic

MAX_PEERS = 200_000
MAX_ALLOWED_IPS = 100_000
MAX_RULES = 100_000
MAX_RULE_ITEMS = 1_000_000
MAX_RESOLVERS = 1000
BASE_FILTER = "base"
CLEAR_ALL = "*"
LEGACY_DERP_IP = "127.3.3.40:"

# Members of a MapResponse whose absence means "unchanged" need a value for "absent": None.


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as its tailnet sees it. ``online`` ``None`` = unknown; ``key_expiry`` ``None`` = never."""

    id: int
    stable_id: str
    name: str
    key: NodePublic
    user: int = 0
    key_expiry: datetime | None = None
    machine: str = ""
    disco_key: DiscoPublic = field(default_factory=DiscoPublic.zero)
    addresses: tuple[str, ...] = ()
    allowed_ips: tuple[str, ...] | None = None
    endpoints: tuple[str, ...] = ()
    home_derp: int = 0
    hostinfo: Mapping[str, Any] = field(default_factory=dict)
    created: datetime | None = None
    cap: int = 0
    tags: tuple[str, ...] = ()
    primary_routes: tuple[str, ...] = ()
    online: bool | None = None
    last_seen: datetime | None = None
    machine_authorized: bool = False
    cap_map: Mapping[str, Any] = field(default_factory=dict)
    expired: bool = False

    @property
    def routed_prefixes(self) -> tuple[str, ...]:
        """What may be sent to it through the tunnel: AllowedIPs, or its addresses when absent."""
        return self.addresses if self.allowed_ips is None else self.allowed_ips

    @property
    def hostname(self) -> str:
        return str(lower_names(self.hostinfo).get("hostname", ""))

    @classmethod
    def from_json(cls, content: Any) -> Self:
        f = lower_names(content)
        node_id = integer(f, "id")
        if node_id <= 0:
            raise MessageError("a node's ID is missing")
        online = f.get("online")
        return cls(
            id=node_id,
            stable_id=string(f, "stableid"),
            name=string(f, "name"),
            key=node_key(f, "key"),
            user=integer(f, "user"),
            key_expiry=parse_time(string(f, "keyexpiry")),
            machine=string(f, "machine"),
            disco_key=disco_key(f, "discokey"),
            addresses=strings(f, "addresses", 16),
            allowed_ips=strings(f, "allowedips", MAX_ALLOWED_IPS) if "allowedips" in f else None,
            endpoints=strings(f, "endpoints", 1024),
            home_derp=_home_derp(f),
            hostinfo=mapping(f, "hostinfo"),
            created=parse_time(string(f, "created")),
            cap=integer(f, "cap"),
            tags=strings(f, "tags", 1024),
            primary_routes=strings(f, "primaryroutes", MAX_ALLOWED_IPS),
            online=online if isinstance(online, bool) else None,
            last_seen=parse_time(string(f, "lastseen")),
            machine_authorized=boolean(f, "machineauthorized"),
            cap_map=mapping(f, "capmap"),
            expired=boolean(f, "expired"),
        )

    def to_json(self) -> dict[str, Any]:
        """Omits what is empty: null is fatal to some clients."""
        content: dict[str, Any] = {
            "ID": self.id,
            "StableID": self.stable_id,
            "Name": self.name,
            "User": self.user,
            "Key": str(self.key),
            "Addresses": list(self.addresses),
        }
        if self.allowed_ips is not None:
            content["AllowedIPs"] = list(self.allowed_ips)
        if self.home_derp:
            content |= {"HomeDERP": self.home_derp, "DERP": f"{LEGACY_DERP_IP}{self.home_derp}"}
        if not self.disco_key.is_zero:
            content["DiscoKey"] = str(self.disco_key)
        optional: dict[str, Any] = {
            "Machine": self.machine,
            "Endpoints": list(self.endpoints),
            "Hostinfo": dict(self.hostinfo),
            "Cap": self.cap,
            "Tags": list(self.tags),
            "PrimaryRoutes": list(self.primary_routes),
            "MachineAuthorized": self.machine_authorized,
            "CapMap": dict(self.cap_map),
            "Expired": self.expired,
        }
        content |= {name: value for name, value in optional.items() if value}
        times = {"KeyExpiry": self.key_expiry, "Created": self.created, "LastSeen": self.last_seen}
        content |= {name: format_time(value) for name, value in times.items() if value is not None}
        return content if self.online is None else content | {"Online": self.online}


def _home_derp(f: Fields) -> int:
    if home := integer(f, "homederp"):
        return home
    legacy = string(f, "derp")
    return decimal(legacy.removeprefix(LEGACY_DERP_IP), "derp") if legacy else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerChange:
    """A small change of one peer; ``None`` = unchanged. An empty Endpoints or CapMap does take effect."""

    node_id: int
    derp_region: int = 0
    cap: int = 0
    cap_map: Mapping[str, Any] | None = None
    endpoints: tuple[str, ...] | None = None
    key: NodePublic | None = None
    disco_key: DiscoPublic | None = None
    online: bool | None = None
    last_seen: datetime | None = None
    key_expiry: datetime | None = None
    clears_key_expiry: bool = False

    @classmethod
    def from_json(cls, content: Any) -> Self:
        f = lower_names(content)
        expiry = string(f, "keyexpiry")
        online = f.get("online")
        return cls(
            node_id=integer(f, "nodeid"),
            derp_region=integer(f, "derpregion"),
            cap=integer(f, "cap"),
            cap_map=mapping(f, "capmap") if "capmap" in f else None,
            endpoints=strings(f, "endpoints", 1024) if "endpoints" in f else None,
            key=node_key(f, "key") if "key" in f else None,
            disco_key=disco_key(f, "discokey") if "discokey" in f else None,
            online=online if isinstance(online, bool) else None,
            last_seen=parse_time(string(f, "lastseen")),
            key_expiry=parse_time(expiry),
            clears_key_expiry=bool(expiry) and parse_time(expiry) is None,
        )

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {"NodeID": self.node_id}
        if self.derp_region:
            content["DERPRegion"] = self.derp_region
        if self.cap:
            content["Cap"] = self.cap
        if self.cap_map is not None:
            content["CapMap"] = dict(self.cap_map)
        if self.endpoints is not None:
            content["Endpoints"] = list(self.endpoints)
        if self.key is not None:
            content["Key"] = str(self.key)
        if self.disco_key is not None:
            content["DiscoKey"] = str(self.disco_key)
        if self.online is not None:
            content["Online"] = self.online
        if self.last_seen is not None:
            content["LastSeen"] = format_time(self.last_seen)
        if self.key_expiry is not None or self.clears_key_expiry:
            content["KeyExpiry"] = format_time(self.key_expiry)
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class UserProfile:
    """Who owns a node."""

    id: int
    login_name: str
    display_name: str = ""
    profile_pic_url: str = ""

    @classmethod
    def from_json(cls, content: Any) -> Self:
        f = lower_names(content)
        return cls(
            id=integer(f, "id"),
            login_name=string(f, "loginname"),
            display_name=string(f, "displayname"),
            profile_pic_url=string(f, "profilepicurl"),
        )

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "ID": self.id,
            "LoginName": self.login_name,
            "DisplayName": self.display_name,
        }
        return content | ({"ProfilePicURL": self.profile_pic_url} if self.profile_pic_url else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRange:
    """Destination of a filter rule: an IP form ("*", address, CIDR, "a-b") and ports, both ends included."""

    ip: str
    first: int = 0
    last: int = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRule:
    """Who may send what to this node. ``protocols`` empty = TCP, UDP and ICMP (6, 17, 1, 58)."""

    sources: tuple[str, ...]
    destinations: tuple[PortRange, ...] = ()
    protocols: tuple[int, ...] = ()
    cap_grants: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_json(cls, content: Any) -> Self:
        f = lower_names(content)
        protocols = f.get("ipproto") or []
        if not isinstance(protocols, list) or not all(isinstance(value, int) for value in protocols):
            raise MessageError("ipproto must be a list of numbers")
        return cls(
            sources=strings(f, "srcips", MAX_RULE_ITEMS),
            destinations=tuple(map(_port_range, objects(f, "dstports", MAX_RULE_ITEMS))),
            protocols=tuple(protocols),
            cap_grants=tuple(objects(f, "capgrant", MAX_RULE_ITEMS)),
        )

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {"SrcIPs": list(self.sources)}
        if self.destinations:
            content["DstPorts"] = [
                {"IP": item.ip, "Ports": {"First": item.first, "Last": item.last}}
                for item in self.destinations
            ]
        if self.protocols:
            content["IPProto"] = list(self.protocols)
        if self.cap_grants:
            content["CapGrant"] = [dict(grant) for grant in self.cap_grants]
        return content


def _port_range(content: Mapping[str, Any]) -> PortRange:
    f = lower_names(content)
    ports = lower_names(f.get("ports") or {})
    return PortRange(ip=string(f, "ip"), first=integer(ports, "first"), last=integer(ports, "last"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """A DNS server: IP, IP:port, or an https URL of a known provider."""

    address: str
    bootstrap: tuple[str, ...] = ()
    use_with_exit_node: bool = False

    @classmethod
    def from_json(cls, content: Any) -> Self:
        f = lower_names(content)
        return cls(
            address=string(f, "addr"),
            bootstrap=strings(f, "bootstrapresolution", 16),
            use_with_exit_node=boolean(f, "usewithexitnode"),
        )

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {"Addr": self.address}
        if self.bootstrap:
            content["BootstrapResolution"] = list(self.bootstrap)
        return content | ({"UseWithExitNode": True} if self.use_with_exit_node else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class DNSConfig:
    """A tailnet's DNS. A route with no resolvers is answered locally only; ``proxied`` is MagicDNS."""

    resolvers: tuple[Resolver, ...] = ()
    routes: Mapping[str, tuple[Resolver, ...]] = field(default_factory=dict)
    fallback_resolvers: tuple[Resolver, ...] = ()
    domains: tuple[str, ...] = ()
    proxied: bool = False
    cert_domains: tuple[str, ...] = ()
    extra_records: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_json(cls, content: Any) -> Self:
        f = lower_names(content)
        routes = mapping(f, "routes")
        return cls(
            resolvers=tuple(map(Resolver.from_json, objects(f, "resolvers", MAX_RESOLVERS))),
            routes={
                suffix: tuple(map(Resolver.from_json, as_objects(items or [], "a DNS route", MAX_RESOLVERS)))
                for suffix, items in routes.items()
            },
            fallback_resolvers=tuple(map(Resolver.from_json, objects(f, "fallbackresolvers", MAX_RESOLVERS))),
            domains=strings(f, "domains", 1000),
            proxied=boolean(f, "proxied"),
            cert_domains=strings(f, "certdomains", 1000),
            extra_records=tuple(objects(f, "extrarecords", 100_000)),
        )

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "Routes": {suffix: [item.to_json() for item in items] for suffix, items in self.routes.items()},
            "Domains": list(self.domains),
            "Proxied": self.proxied,
        }
        optional: dict[str, Any] = {
            "Resolvers": [item.to_json() for item in self.resolvers],
            "FallbackResolvers": [item.to_json() for item in self.fallback_resolvers],
            "CertDomains": list(self.cert_domains),
            "ExtraRecords": [dict(record) for record in self.extra_records],
        }
        return content | {name: value for name, value in optional.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class MapResponse:
    """One message of the map stream, as a client reads it; ``None`` members are absent (unchanged)."""

    keep_alive: bool = False
    node: Node | None = None
    derp_map: DERPMap | None = None
    peers: tuple[Node, ...] | None = None
    peers_changed: tuple[Node, ...] = ()
    peers_removed: tuple[int, ...] = ()
    peers_changed_patch: tuple[PeerChange, ...] = ()
    online_change: Mapping[int, bool] = field(default_factory=dict)
    peer_seen_change: Mapping[int, bool] = field(default_factory=dict)
    dns_config: DNSConfig | None = None
    domain: str = ""
    packet_filters: Mapping[str, tuple[FilterRule, ...] | None] | None = None
    user_profiles: tuple[UserProfile, ...] = ()
    health: tuple[str, ...] | None = None
    ping_request: PingRequest | None = None
    control_time: datetime | None = None
    pop_browser_url: str = ""
    ssh_policy: Mapping[str, Any] | None = None
    collect_services: bool | None = None

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Raises :class:`MessageError`."""
        f = lower_names(content)
        removed = f.get("peersremoved") or []
        if not isinstance(removed, list) or not all(isinstance(item, int) for item in removed):
            raise MessageError("peersremoved must be a list of node IDs")
        peers = objects(f, "peers", MAX_PEERS)
        return cls(
            keep_alive=boolean(f, "keepalive"),
            node=Node.from_json(f["node"]) if "node" in f else None,
            derp_map=DERPMap.from_json(f["derpmap"]) if "derpmap" in f else None,
            peers=tuple(map(Node.from_json, peers)) if peers else None,
            peers_changed=tuple(map(Node.from_json, objects(f, "peerschanged", MAX_PEERS))),
            peers_removed=tuple(removed),
            peers_changed_patch=tuple(map(PeerChange.from_json, objects(f, "peerschangedpatch", MAX_PEERS))),
            online_change=_by_id(f, "onlinechange"),
            peer_seen_change=_by_id(f, "peerseenchange"),
            dns_config=DNSConfig.from_json(f["dnsconfig"]) if "dnsconfig" in f else None,
            domain=string(f, "domain"),
            packet_filters=_filters(f),
            user_profiles=tuple(map(UserProfile.from_json, objects(f, "userprofiles", MAX_PEERS))),
            health=strings(f, "health", 1000) if "health" in f else None,
            ping_request=PingRequest.from_json(f["pingrequest"]) if "pingrequest" in f else None,
            control_time=parse_time(string(f, "controltime")),
            pop_browser_url=string(f, "popbrowserurl"),
            ssh_policy=mapping(f, "sshpolicy") if "sshpolicy" in f else None,
            collect_services=boolean(f, "collectservices") if "collectservices" in f else None,
        )


def _by_id(f: Fields, name: str) -> dict[int, bool]:
    members = mapping(f, name)
    if not all(isinstance(value, bool) for value in members.values()):
        raise MessageError(f"{name} must map node IDs to true or false")
    return {decimal(key, name): value for key, value in members.items()}


def _filters(f: Fields) -> dict[str, tuple[FilterRule, ...] | None] | None:
    """``PacketFilters``, with the older ``PacketFilter`` as its member "base"."""
    named: dict[str, tuple[FilterRule, ...] | None] = {}
    if "packetfilter" in f:
        named[BASE_FILTER] = tuple(map(FilterRule.from_json, objects(f, "packetfilter", MAX_RULES)))
    for name, rules in mapping(f, "packetfilters").items():
        if rules is None:
            named[name] = None
        else:
            named[name] = tuple(map(FilterRule.from_json, as_objects(rules, "a packet filter", MAX_RULES)))
    return named or None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetMap:
    """What a client knows: itself, its peers by ID, its network. :mod:`wire.delta` makes the next one."""

    node: Node
    peers: Mapping[int, Node] = field(default_factory=dict)
    derp_map: DERPMap = field(default_factory=DERPMap)
    dns_config: DNSConfig = field(default_factory=DNSConfig)
    domain: str = ""
    packet_filters: Mapping[str, tuple[FilterRule, ...]] | None = None
    user_profiles: Mapping[int, UserProfile] = field(default_factory=dict)
    ssh_policy: Mapping[str, Any] = field(default_factory=dict)
    health: tuple[str, ...] = ()

    @property
    def filter_rules(self) -> tuple[FilterRule, ...] | None:
        """All rules in force; ``None`` when no filter was ever sent, which blocks all that comes in."""
        if self.packet_filters is None:
            return None
        return tuple(rule for name in sorted(self.packet_filters) for rule in self.packet_filters[name])

    @property
    def magic_dns_suffix(self) -> str:
        """What follows the first label of this node's name, without the trailing dot."""
        return self.node.name.partition(".")[2].rstrip(".")
