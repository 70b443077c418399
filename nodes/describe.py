"""Devices and keys as the public API v2 (and every command's ``--json``) shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from accounts.models import Tailnet
from nodes.facts import Facts, facts_of, timestamp
from nodes.hostinfo import MAX_HOSTNAME, hostname, lowered, region_seconds, text
from nodes.models import Node, PreAuthKey
from nodes.offers import routes_of
from nodes.regions import region_names
from nodes.versions import Kind, Version, is_old, newest, of_kind

TAGGED_DEVICES = "tagged-devices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What around a device says how it is described: its tailnet's domain, regions, and newest clients."""

    domain: str
    regions: Mapping[int, str]
    newest: Mapping[Kind, Version]


def what_is_around(
    tailnet: Tailnet, *, base_domain: str, everything: bool = True, kind: Kind | None = None
) -> Around:
    """The same for all devices of a tailnet (or those of one ``kind``), whose scope must be open."""
    devices = Node.objects.get_queryset()
    return Around(
        domain=f"{tailnet.name}.{base_domain}",
        regions=region_names(tailnet.pk) if everything else {},
        newest=newest(of_kind(devices, kind) if kind is not None else devices),
    )


def describe_facts(facts: Facts, around: Around, *, everything: bool) -> dict[str, Any]:
    """An API v2 Device; ``everything`` as ``fields=all``. ``lastSeen`` is absent while connected."""
    hostinfo = lowered(facts.hostinfo)
    device: dict[str, Any] = {
        "id": str(facts.id),
        "nodeId": facts.stable_id,
        "name": f"{facts.name}.{around.domain}",
        "hostname": facts.hostname or facts.name,
        "user": facts.login_name or TAGGED_DEVICES,
        "addresses": [facts.ipv4, facts.ipv6],
        "os": _text(hostinfo, "os"),
        "clientVersion": _text(hostinfo, "ipnversion"),
        "updateAvailable": is_old(facts.version, (facts.app, facts.system), around.newest),
        "created": facts.created,
        "connectedToControl": facts.online,
        "expires": facts.key_expiry,
        "keyExpiryDisabled": facts.login_name is None or facts.key_expiry_disabled,
        "authorized": facts.approved,
        "isExternal": False,
        "isEphemeral": facts.ephemeral,
        "machineKey": facts.machine_key,
        "nodeKey": facts.node_key,
        "blocksIncomingConnections": hostinfo.get("shieldsup") is True,
        "multipleConnections": facts.cloned,
        "tailnetLockKey": "",
        "tailnetLockError": "",
    }
    if not facts.online:
        device["lastSeen"] = facts.last_seen or facts.created
    if facts.tags:
        device["tags"] = facts.tags
    if everything:
        device |= _details(facts, hostinfo, around.regions)
    return device


def _text(hostinfo: Mapping[str, Any], name: str) -> str:
    value = hostinfo.get(name)
    return value[:MAX_HOSTNAME] if isinstance(value, str) else ""


def _details(facts: Facts, hostinfo: Mapping[str, Any], regions: Mapping[int, str]) -> dict[str, Any]:
    routes = routes_of(facts.preapproved_routes, facts.routes)
    keys = hostinfo.get("sshhostkeys")
    return {
        "advertisedRoutes": routes.advertised,
        "enabledRoutes": routes.enabled,
        "sshEnabled": isinstance(keys, list) and bool(keys),
        "distro": {
            "name": _text(hostinfo, "distro"),
            "version": _text(hostinfo, "distroversion"),
            "codeName": _text(hostinfo, "distrocodename"),
        },
        "clientConnectivity": _connectivity(facts, lowered(hostinfo.get("netinfo")), regions),
    }


def _connectivity(facts: Facts, net: Mapping[str, Any], regions: Mapping[int, str]) -> dict[str, Any]:
    return {
        "endpoints": facts.endpoints,
        "derp": f"127.3.3.40:{facts.home_derp}" if facts.home_derp else "",
        "mappingVariesByDestIP": net.get("mappingvariesbydestip") is True,
        "latency": _latency(net.get("derplatency"), facts.home_derp, regions),
        "clientSupports": {
            "hairPinning": net.get("hairpinning") is True,
            "ipv6": net.get("workingipv6") is True,
            "pcp": net.get("pcp") is True,
            "pmp": net.get("pmp") is True,
            "udp": net.get("workingudp") is True,
            "upnp": net.get("upnp") is True,
        },
    }


def _latency(reported: Any, home: int, regions: Mapping[int, str]) -> dict[str, Any]:
    """By the names of regions (of an unknown one its number), the lower of both families.

    ``{"Madrid": {"latencyMs": 1.2, "preferred": true}, "Dallas": {"latencyMs": 60.46}}``
    """
    found: dict[str, Any] = {}
    for region, seconds in region_seconds(reported).items():
        name = regions.get(region) or str(region)
        if name in found:
            name = f"{name} ({region})"
        found[name] = {"latencyMs": int(seconds * 100_000 + 0.5) / 100}
        if region == home:
            found[name]["preferred"] = True
    return found


def describe_device_with_state(
    node: Node, *, base_domain: str, now: datetime, around: Around | None = None
) -> dict[str, Any]:
    """A Device plus what only Trenza tells: ``online`` and ``state``.

    Whoever describes many gives what is ``around`` them, which then is read once.
    """
    facts = facts_of(node, now)
    kind = facts.app, facts.system
    around = around or what_is_around(node.tailnet, base_domain=base_domain, kind=kind)
    device = describe_facts(facts, around, everything=True)
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
    person = key.user_id or key.created_by_id
    if person is not None:
        described["userId"] = str(person)
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
