"""Messages of the control protocol: registration and what a node says of itself.

Names are read without regard to case, unknown members are ignored, sizes are bounded.
Source: tailscale tailcfg/tailcfg.go.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from wire.errors import KeyFormatError, MessageError
from wire.fields import Fields, boolean, integer, lower_names, mapping, objects, string, strings
from wire.keys import DiscoPublic, NodePublic

CAPABILITY_VERSION = 130  # what Trenza's client declares
MIN_CAPABILITY_VERSION = 113  # what Trenza's server accepts

MAX_CAPABILITY_VERSION = 65_535
MAX_PORT = 65_535
MAX_ENDPOINTS = 128
MAX_ROUTES = 1024
MAX_TAGS = 128
MAX_SERVICES = 512
MAX_AUTH_KEY = 512
MAX_URL = 4096
ZERO_TIME = "0001-01-01T00:00:00Z"


# --- times -----------------------------------------------------------------------------------------------


def parse_time(text: str) -> datetime | None:
    """RFC 3339 to an aware UTC time; Go's zero time and "" are ``None``. Raises :class:`MessageError`."""
    if not text or text.startswith("0001-01-01T00:00:00"):
        return None
    head, dot, tail = text.partition(".")
    if dot:  # Go writes nanoseconds; Python reads at most microseconds
        digits = tail.rstrip("Z").split("+")[0].split("-")[0]
        text = head + "." + digits[:6].ljust(6, "0") + tail[len(digits) :]
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise MessageError(f"{text!r} is not an RFC 3339 time") from error


def format_time(moment: datetime | None) -> str:
    """An aware time as RFC 3339 in UTC; ``None`` as Go's zero time."""
    if moment is None:
        return ZERO_TIME
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def node_key(fields: Fields, name: str) -> NodePublic:
    """A node key member; absent or "" is the zero key."""
    text = string(fields, name)
    try:
        return NodePublic.parse(text) if text else NodePublic.zero()
    except KeyFormatError as error:
        raise MessageError(f"{name} is not a node key") from error


def _bounded(fields: Fields, name: str, limit: int) -> int:
    value = integer(fields, name)
    if not 0 <= value <= limit:
        raise MessageError(f"{name} must be between 0 and {limit}")
    return value


def disco_key(fields: Fields, name: str) -> DiscoPublic:
    text = string(fields, name)
    try:
        return DiscoPublic.parse(text) if text else DiscoPublic.zero()
    except KeyFormatError as error:
        raise MessageError(f"{name} is not a disco key") from error


# --- what a node says of itself --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NetInfo:
    """A node's netcheck as it reports it. ``preferred_derp`` 0 = none chosen; latencies in seconds."""

    preferred_derp: int = 0
    derp_latency: Mapping[str, float] = field(default_factory=dict)
    working_udp: bool | None = None
    working_ipv6: bool | None = None
    mapping_varies_by_dest_ip: bool | None = None
    os_has_ipv6: bool | None = None
    have_port_map: bool = False
    upnp: bool | None = None
    pmp: bool | None = None
    pcp: bool | None = None
    link_type: str = ""
    firewall_mode: str = ""

    @classmethod
    def from_json(cls, content: Any) -> Self:
        f = lower_names(content)

        def optional(name: str) -> bool | None:
            return boolean(f, name) if name in f and f[name] != "" else None

        latency = mapping(f, "derplatency")
        return cls(
            preferred_derp=integer(f, "preferredderp"),
            derp_latency={
                str(key): float(value) for key, value in latency.items() if isinstance(value, int | float)
            },
            working_udp=optional("workingudp"),
            working_ipv6=optional("workingipv6"),
            mapping_varies_by_dest_ip=optional("mappingvariesbydestip"),
            os_has_ipv6=optional("oshasipv6"),
            have_port_map=boolean(f, "haveportmap"),
            upnp=optional("upnp"),
            pmp=optional("pmp"),
            pcp=optional("pcp"),
            link_type=string(f, "linktype"),
            firewall_mode=string(f, "firewallmode"),
        )

    def to_json(self) -> dict[str, Any]:
        optional = {
            "WorkingUDP": self.working_udp,
            "WorkingIPv6": self.working_ipv6,
            "MappingVariesByDestIP": self.mapping_varies_by_dest_ip,
            "OSHasIPv6": self.os_has_ipv6,
            "UPnP": self.upnp,
            "PMP": self.pmp,
            "PCP": self.pcp,
        }
        content: dict[str, Any] = {name: value for name, value in optional.items() if value is not None}
        if self.preferred_derp:
            content["PreferredDERP"] = self.preferred_derp
        if self.derp_latency:
            content["DERPLatency"] = dict(self.derp_latency)
        if self.have_port_map:
            content["HavePortMap"] = True
        texts = {"LinkType": self.link_type, "FirewallMode": self.firewall_mode}
        return content | {name: value for name, value in texts.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Something a node listens on; ``proto`` also has the PeerAPI's special names."""

    proto: str
    port: int
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {"Proto": self.proto, "Port": self.port}
        return content | ({"Description": self.description} if self.description else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostinfo:
    """A node's description of its host. ``raw`` is the object as received, for what is only passed on."""

    hostname: str = ""
    os: str = ""
    os_version: str = ""
    ipn_version: str = ""
    backend_log_id: str = ""
    distro: str = ""
    device_model: str = ""
    routable_ips: tuple[str, ...] = ()
    request_tags: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()
    ssh_host_keys: tuple[str, ...] = ()
    shields_up: bool = False
    net_info: NetInfo | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        f = lower_names(content)
        services = (lower_names(item) for item in objects(f, "services", MAX_SERVICES))
        return cls(
            hostname=string(f, "hostname", max_length=1024),
            os=string(f, "os", max_length=256),
            os_version=string(f, "osversion", max_length=256),
            ipn_version=string(f, "ipnversion", max_length=256),
            backend_log_id=string(f, "backendlogid", max_length=256),
            distro=string(f, "distro", max_length=256),
            device_model=string(f, "devicemodel", max_length=256),
            routable_ips=strings(f, "routableips", MAX_ROUTES),
            request_tags=strings(f, "requesttags", MAX_TAGS),
            services=tuple(
                Service(
                    proto=string(s, "proto"),
                    port=_bounded(s, "port", MAX_PORT),
                    description=string(s, "description"),
                )
                for s in services
            ),
            ssh_host_keys=strings(f, "sshhostkeys", 64) or strings(f, "ssh_hostkeys", 64),
            shields_up=boolean(f, "shieldsup"),
            net_info=NetInfo.from_json(f["netinfo"]) if "netinfo" in f else None,
            raw=dict(content),
        )

    def to_json(self) -> dict[str, Any]:
        """What a client sends: the members set here over those of ``raw``."""
        texts = {
            "Hostname": self.hostname,
            "OS": self.os,
            "OSVersion": self.os_version,
            "IPNVersion": self.ipn_version,
            "BackendLogID": self.backend_log_id,
            "Distro": self.distro,
            "DeviceModel": self.device_model,
        }
        lists: dict[str, Any] = {
            "RoutableIPs": list(self.routable_ips),
            "RequestTags": list(self.request_tags),
            "Services": [service.to_json() for service in self.services],
            "sshHostKeys": list(self.ssh_host_keys),
        }
        content = dict(self.raw) | {name: value for name, value in (texts | lists).items() if value}
        if self.shields_up:
            content["ShieldsUp"] = True
        if self.net_info is not None:
            content["NetInfo"] = self.net_info.to_json()
        return content


# --- registration ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRequest:
    """``POST /machine/register``. Zero keys stand for absent ones; ``expiry`` ``None`` = not asked for."""

    version: int
    node_key: NodePublic
    old_node_key: NodePublic = field(default_factory=NodePublic.zero)
    auth_key: str = field(default="", repr=False)
    expiry: datetime | None = None
    followup: str = field(default="", repr=False)
    hostinfo: Hostinfo = field(default_factory=Hostinfo)
    ephemeral: bool = False
    tailnet: str = ""
    trenza_rotate: bool = False

    @classmethod
    def from_json(cls, content: Any) -> Self:
        f = lower_names(content)
        auth = lower_names(f.get("auth") or {})
        return cls(
            version=_bounded(f, "version", MAX_CAPABILITY_VERSION),
            node_key=node_key(f, "nodekey"),
            old_node_key=node_key(f, "oldnodekey"),
            auth_key=string(auth, "authkey", max_length=MAX_AUTH_KEY),
            expiry=parse_time(string(f, "expiry")),
            followup=string(f, "followup", max_length=MAX_URL),
            hostinfo=Hostinfo.from_json(f.get("hostinfo") or {}),
            ephemeral=boolean(f, "ephemeral"),
            tailnet=string(f, "tailnet", max_length=1024),
            trenza_rotate=boolean(f, "trenzarotate"),
        )

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "Version": self.version,
            "NodeKey": str(self.node_key),
            "OldNodeKey": str(self.old_node_key),
            "NLKey": "nlpub:" + "0" * 64,
            "Expiry": format_time(self.expiry),
            "Followup": self.followup,
            "Hostinfo": self.hostinfo.to_json(),
        }
        if self.auth_key:
            content["Auth"] = {"AuthKey": self.auth_key}
        if self.ephemeral:
            content["Ephemeral"] = True
        if self.trenza_rotate:
            content["TrenzaRotate"] = True
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterResponse:
    """The answer; every member is always sent, since some clients need them all."""

    user_id: int = 0
    login_name: str = ""
    display_name: str = ""
    profile_pic_url: str = ""
    provider: str = ""
    created: datetime | None = None
    node_key_expired: bool = False
    machine_authorized: bool = True
    auth_url: str = field(default="", repr=False)
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "User": {
                "ID": self.user_id,
                "DisplayName": self.display_name,
                "ProfilePicURL": self.profile_pic_url,
                "Created": format_time(self.created),
            },
            "Login": {
                "ID": self.user_id,
                "Provider": self.provider,
                "LoginName": self.login_name,
                "DisplayName": self.display_name,
                "ProfilePicURL": self.profile_pic_url,
            },
            "NodeKeyExpired": self.node_key_expired,
            "MachineAuthorized": self.machine_authorized,
            "AuthURL": self.auth_url,
            "Error": self.error,
        }

    @classmethod
    def from_json(cls, content: Any) -> Self:
        f = lower_names(content)
        user, login = lower_names(f.get("user") or {}), lower_names(f.get("login") or {})
        return cls(
            user_id=integer(user, "id"),
            login_name=string(login, "loginname"),
            display_name=string(user, "displayname") or string(login, "displayname"),
            profile_pic_url=string(user, "profilepicurl"),
            provider=string(login, "provider"),
            node_key_expired=boolean(f, "nodekeyexpired"),
            machine_authorized=boolean(f, "machineauthorized"),
            auth_url=string(f, "authurl", max_length=MAX_URL),
            error=string(f, "error"),
        )


# --- map requests ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRequest:
    """``POST /machine/map``. ``endpoints`` are "ip:port", ``endpoint_types`` say how each was found."""

    version: int
    node_key: NodePublic
    disco_key: DiscoPublic = field(default_factory=DiscoPublic.zero)
    compress: str = ""
    keep_alive: bool = False
    stream: bool = False
    omit_peers: bool = False
    read_only: bool = False
    hostinfo: Hostinfo | None = None
    endpoints: tuple[str, ...] = ()
    endpoint_types: tuple[int, ...] = ()
    debug_flags: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, content: Any) -> Self:
        f = lower_names(content)
        types = f.get("endpointtypes") or []
        if not isinstance(types, list) or len(types) > MAX_ENDPOINTS:
            raise MessageError("endpointtypes must be a short list")
        return cls(
            version=_bounded(f, "version", MAX_CAPABILITY_VERSION),
            node_key=node_key(f, "nodekey"),
            disco_key=disco_key(f, "discokey"),
            compress=string(f, "compress", max_length=32),
            keep_alive=boolean(f, "keepalive"),
            stream=boolean(f, "stream"),
            omit_peers=boolean(f, "omitpeers"),
            read_only=boolean(f, "readonly"),
            hostinfo=Hostinfo.from_json(f["hostinfo"]) if "hostinfo" in f else None,
            endpoints=strings(f, "endpoints", MAX_ENDPOINTS),
            endpoint_types=tuple(value for value in types if isinstance(value, int)),
            debug_flags=strings(f, "debugflags", 64),
        )

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "Version": self.version,
            "KeepAlive": self.keep_alive,
            "NodeKey": str(self.node_key),
            "DiscoKey": str(self.disco_key),
            "Stream": self.stream,
            "Endpoints": list(self.endpoints),
            "EndpointTypes": list(self.endpoint_types),
        }
        if self.compress:
            content["Compress"] = self.compress
        if self.hostinfo is not None:
            content["Hostinfo"] = self.hostinfo.to_json()
        if self.omit_peers:
            content["OmitPeers"] = True
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class PingRequest:
    """The server asks something of the client; each ``url`` is used once, ``payload`` is raw HTTP (c2n)."""

    url: str
    url_is_noise: bool = True
    types: str = ""
    ip: str = ""
    payload: bytes = b""
    log: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "URL": self.url,
            "URLIsNoise": self.url_is_noise,
            "Types": self.types,
            "IP": self.ip,
            "Payload": base64.b64encode(self.payload).decode(),
        }

    @classmethod
    def from_json(cls, content: Any) -> Self:
        f = lower_names(content)
        try:
            payload = base64.b64decode(string(f, "payload", max_length=1024 * 1024), validate=True)
        except ValueError as error:  # binascii.Error, or characters outside ASCII
            raise MessageError("payload is not base64") from error
        return cls(
            url=string(f, "url", max_length=MAX_URL),
            url_is_noise=boolean(f, "urlisnoise"),
            types=string(f, "types"),
            ip=string(f, "ip"),
            payload=payload,
            log=boolean(f, "log"),
        )
