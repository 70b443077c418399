"""Devices and keys as the public API v2 (and every command's ``--json``) shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from nodes.hostinfo import field, hostname, strings, text
from nodes.models import Node, PreAuthKey
from nodes.names import fqdn
from nodes.selectors import is_online

TAGGED_DEVICES = "tagged-devices"


def timestamp(moment: datetime | None) -> str:
    """RFC 3339 in UTC to the second; "" for none (what the API shows of a device)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment is not None else ""


def describe_device(
    node: Node, *, base_domain: str, now: datetime, everything: bool = False
) -> dict[str, Any]:
    """An API v2 Device; ``everything`` as ``fields=all``. ``lastSeen`` is absent while connected."""
    online = is_online(node, now)
    device: dict[str, Any] = {
        "id": str(node.pk),
        "nodeId": node.stable_id,
        "name": fqdn(node.name, node.tailnet.name, base_domain).rstrip("."),
        "hostname": node.hostname or node.name,
        "user": node.user.login_name if node.user is not None else TAGGED_DEVICES,
        "addresses": [node.ipv4, node.ipv6],
        "os": text(node.hostinfo, "OS"),
        "clientVersion": text(node.hostinfo, "IPNVersion"),
        "updateAvailable": False,
        "created": timestamp(node.created),
        "connectedToControl": online,
        "expires": timestamp(node.key_expiry),
        "keyExpiryDisabled": node.is_tagged or node.key_expiry_disabled,
        "authorized": node.is_approved,
        "isExternal": False,
        "isEphemeral": node.ephemeral,
        "machineKey": node.machine_key,
        "nodeKey": node.node_key,
        "tags": node.tags,
        "blocksIncomingConnections": field(node.hostinfo, "ShieldsUp") is True,
        "multipleConnections": node.cloned_at is not None,
        "tailnetLockKey": "",
        "tailnetLockError": "",
    }
    if not online:
        device["lastSeen"] = timestamp(node.last_seen or node.created)
    if not node.tags:
        del device["tags"]
    if everything:
        device |= _details(node)
    return device


def _details(node: Node) -> dict[str, Any]:
    routes = list(node.routes.all())
    return {
        "advertisedRoutes": [route.prefix for route in routes],
        "enabledRoutes": [route.prefix for route in routes if route.approved_at is not None],
        "sshEnabled": bool(strings(node.hostinfo, "sshHostKeys")),
        "distro": {
            "name": text(node.hostinfo, "Distro"),
            "version": text(node.hostinfo, "DistroVersion"),
            "codeName": text(node.hostinfo, "DistroCodeName"),
        },
        "clientConnectivity": _connectivity(node),
    }


def _connectivity(node: Node) -> dict[str, Any]:
    net = field(node.hostinfo, "NetInfo")
    net = net if isinstance(net, dict) else {}
    latencies = field(net, "DERPLatency")
    return {
        "endpoints": node.endpoints,
        "derp": f"127.3.3.40:{node.home_derp}" if node.home_derp else "",
        "mappingVariesByDestIP": field(net, "MappingVariesByDestIP") is True,
        "latency": _latency(latencies if isinstance(latencies, dict) else {}, node.home_derp),
        "clientSupports": {
            "hairPinning": field(net, "HairPinning") is True,
            "ipv6": field(net, "WorkingIPv6") is True,
            "pcp": field(net, "PCP") is True,
            "pmp": field(net, "PMP") is True,
            "udp": field(net, "WorkingUDP") is True,
            "upnp": field(net, "UPnP") is True,
        },
    }


def _latency(reported: dict[str, Any], home: int) -> dict[str, Any]:
    """Per region the lower of both families: ``{"900": {"latencyMs": 1.2, "preferred": true}}``."""
    best: dict[str, float] = {}
    for key, seconds in reported.items():
        if isinstance(seconds, int | float):
            region = str(key).partition("-")[0]
            best[region] = min(seconds, best.get(region, seconds))
    return {
        region: {"latencyMs": round(seconds * 1000, 2)} | ({"preferred": True} if region == str(home) else {})
        for region, seconds in best.items()
    }


def describe_device_with_state(node: Node, *, base_domain: str, now: datetime) -> dict[str, Any]:
    """A Device plus what only Trenza tells: ``online`` and ``state``."""
    device = describe_device(node, base_domain=base_domain, now=now, everything=True)
    return device | {"online": device["connectedToControl"], "state": node.state}


def describe_auth_key(key: PreAuthKey, *, now: datetime, secret: str | None = None) -> dict[str, Any]:
    """An API v2 Key of type auth; ``secret`` is given once, when it was made. Absent times are left out."""
    described: dict[str, Any] = {
        "id": key.public_id,
        "keyType": "auth",
        "description": key.description,
        "created": timestamp(key.created),
        "expires": timestamp(key.expires),
        "expirySeconds": int((key.expires - key.created).total_seconds()),
        "invalid": not key.is_valid(now),
        "capabilities": {
            "devices": {
                "create": {
                    "reusable": key.reusable,
                    "ephemeral": key.ephemeral,
                    "preauthorized": key.preauthorized,
                    "tags": key.tags,
                }
            }
        },
    }
    if key.user_id is not None:
        described["userId"] = str(key.user_id)
    if key.revoked_at is not None:
        described["revoked"] = timestamp(key.revoked_at)
    if secret is not None:
        described["key"] = secret
    return described


def machine_summary(hostinfo: dict[str, Any]) -> dict[str, str]:
    """What the confirmation page says of a machine besides its keys."""
    return {
        "hostname": hostname(hostinfo),
        "os": text(hostinfo, "OS"),
        "version": text(hostinfo, "IPNVersion"),
    }
