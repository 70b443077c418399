"""What the relay has done, in Prometheus' text format."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterator, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "trenza_relay_"

# name: (kind, help)
FAMILIES: Mapping[str, tuple[str, str]] = {
    "clients": ("gauge", "Different node keys that are connected."),
    "connections": ("gauge", "Admitted connections."),
    "handshakes": ("gauge", "Connections that are not admitted yet."),
    "served_keys": ("gauge", "Keys that the server names."),
    "control_connected": ("gauge", "1 while the link to the server stands."),
    "mesh_watchers": ("gauge", "Relays of the region that follow this one."),
    "mesh_links": ("gauge", "Relays of the region that this one follows."),
    "uptime_seconds": ("gauge", "Seconds since the relay started."),
    "accepted_total": ("counter", "Clients admitted."),
    "refused_total": ("counter", "Clients whose key is not served."),
    "failed_handshakes_total": ("counter", "Connections that ended before admission."),
    "packets_total": ("counter", "Packets handed to clients."),
    "packets_forwarded_in_total": ("counter", "Packets that came from another relay of the region."),
    "packets_forwarded_out_total": ("counter", "Packets that went to another relay of the region."),
    "bytes_in_total": ("counter", "Bytes of frames from clients."),
    "bytes_out_total": ("counter", "Bytes that the clients' sockets took."),
    "dropped_queue_total": ("counter", "Frames dropped for clients that did not keep up."),
    "dropped_unknown_total": ("counter", "Packets for keys that are not here."),
    "closed_stalled_total": ("counter", "Clients closed because they took nothing any more."),
    "closed_protocol_total": ("counter", "Clients closed because they broke the protocol."),
    "stun_answered_total": ("counter", "STUN requests answered."),
    "stun_ignored_total": ("counter", "UDP packets that were no STUN request of ours."),
}

# What a proxy adds: the request is not from this host then, though its socket is.
FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")


def may_read(address: str, headers: Mapping[str, str], token: str) -> bool:
    """Whether whoever asks from ``address`` is shown this: by the token where there is one, else on loopback.

    ``headers`` by lower-case names.
    """
    if token:
        return secrets.compare_digest(headers.get("authorization", "").encode(), f"Bearer {token}".encode())
    return ipaddress.ip_address(address).is_loopback and not any(name in headers for name in FORWARDED)


def render(values: Mapping[str, float]) -> bytes:
    """``values`` by name without the prefix; each must be one of FAMILIES."""
    return "".join(_lines(values)).encode()


def _lines(values: Mapping[str, float]) -> Iterator[str]:
    for name, value in values.items():
        kind, text = FAMILIES[name]
        yield f"# HELP {PREFIX}{name} {text}\n# TYPE {PREFIX}{name} {kind}\n{PREFIX}{name} {value}\n"
