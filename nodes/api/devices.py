"""Devices: the list, each of them, and what can be done to one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from rest_framework import serializers

from accounts.api.fields import Matching, beyond_the_schema
from accounts.api.values import Choice, Closed, Flag, Text, Texts
from accounts.api.views import ApiView, operation
from accounts.downloads import streamed
from accounts.errors import Conflict, Forbidden
from accounts.models import Membership
from accounts.tenancy import scope
from nodes.access import NodeAction, facts_for, node_for, visible_nodes
from nodes.describe import Around, describe_facts, what_is_around
from nodes.facts import Slice, read_slice
from nodes.hostinfo import MAX_ROUTES
from nodes.models import Node
from nodes.names import short_name
from nodes.offers import Routes, routes_of
from nodes.services import lifecycle
from nodes.services.routes import set_enabled_routes
from nodes.services.tagging import beyond_tags
from nodes.tags import MAX_TAGS

CORE, CORE_READ = "devices:core", "devices:core:read"
ROUTES, ROUTES_READ = "devices:routes", "devices:routes:read"
MAX_NAME = 255
LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
NAME = rf"\A{LABEL}(\.{LABEL})*\.?\Z"
OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4 = rf"\A100\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\.{OCTET}\.{OCTET}\Z"  # 100.64.0.0/10
PREFIX = r"\A[0-9A-Fa-f:.]{2,45}/[0-9]{1,3}\Z"
TAG = r"\Atag:[A-Za-z][A-Za-z0-9-]{0,62}\Z"
MAX_ENABLED = 2 * MAX_ROUTES  # those it offers, and those it may offer later
DETAILS = ("advertisedRoutes", "enabledRoutes", "sshEnabled", "distro", "clientConnectivity")


# --- what a device looks like ------------------------------------------------------------------------------


class Distro(Closed):
    """A Linux distribution; of other systems all are empty."""

    name = Text()
    version = Text()
    codeName = Text()


class Latency(Closed):
    """How far a relay region is."""

    latencyMs = serializers.FloatField(min_value=0)
    preferred = Flag(required=False, help_text="Whether it is the device's home; absent otherwise.")


class ClientSupports(Closed):
    """What the network around a device can do."""

    hairPinning = Flag()
    ipv6 = Flag()
    pcp = Flag()
    pmp = Flag()
    udp = Flag()
    upnp = Flag()


class ClientConnectivity(Closed):
    """How a device is connected, as it says itself."""

    endpoints = Texts(allow_null=False, help_text="Its public and local addresses, with ports.")
    derp = Text(help_text="Its home relay region, as 127.3.3.40:NUMBER; empty = not known.")
    mappingVariesByDestIP = Flag(help_text="Whether its NAT uses another port for each destination.")
    latency = serializers.DictField(child=Latency(), help_text="By the names of relay regions.")
    clientSupports = ClientSupports()


class Device(Closed):
    """A device. Moments are empty where there is none."""

    id = Text(help_text="The older of its two IDs; both are taken everywhere.")
    nodeId = Text(help_text="The ID to use.")
    name = Text(help_text="Its full name in the tailnet's DNS.")
    hostname = Text(help_text="What it calls itself.")
    user = Text(help_text="Whose it is; tagged-devices for a device that has tags.")
    addresses = Texts(allow_null=False)
    os = Text()
    clientVersion = Text()
    updateAvailable = Flag(help_text="Whether a newer version of its client is in use in the tailnet.")
    created = Text()
    lastSeen = Text(required=False, help_text="Absent while it is connected.")
    connectedToControl = Flag()
    expires = Text(help_text="When its key ends, if that is not disabled.")
    keyExpiryDisabled = Flag()
    authorized = Flag(help_text="Whether it is approved.")
    isExternal = Flag()
    isEphemeral = Flag()
    machineKey = Text()
    nodeKey = Text()
    tags = Texts(required=False, allow_null=False, help_text="Absent when it has none.")
    blocksIncomingConnections = Flag()
    multipleConnections = Flag(help_text="Whether its keys are in use by two machines.")
    tailnetLockKey = Text()
    tailnetLockError = Text()
    advertisedRoutes = Texts(required=False, allow_null=False, help_text="With fields=all.")
    enabledRoutes = Texts(
        required=False, allow_null=False, max_length=MAX_ENABLED, help_text="With fields=all."
    )
    sshEnabled = Flag(required=False, help_text="With fields=all.")
    distro = Distro(required=False, help_text="With fields=all.")
    clientConnectivity = ClientConnectivity(required=False, help_text="With fields=all.")


class Devices(Closed):
    """The list of devices."""

    devices = Device(many=True)


class DeviceRoutes(Closed):
    """Prefixes that a device offers, and those that are approved; an approved one may be offered later."""

    advertisedRoutes = Texts(allow_null=False)
    enabledRoutes = Texts(allow_null=False, max_length=MAX_ENABLED)


def describe_routes(routes: Routes) -> dict[str, Any]:
    return {"advertisedRoutes": routes.advertised, "enabledRoutes": routes.enabled}


# --- what is asked for -------------------------------------------------------------------------------------


class DeviceFields(Closed):
    """Which members are answered."""

    fields = Choice(  # type: ignore[assignment]
        choices=["default", "all"],
        required=False,
        help_text=f"all adds {', '.join(DETAILS)}.",
    )


def _filter(field: serializers.Field[Any, Any, Any, Any]) -> serializers.ListField | None:
    """How a member of a device is filtered by; ``None`` = it is not."""
    child: serializers.Field[Any, Any, Any, Any] = Text()
    if isinstance(field, Flag):
        child = Choice(choices=["true", "false"])
    elif not isinstance(field, Text | Texts):
        return None
    return serializers.ListField(child=child, required=False, help_text="Any of these.")


FILTERS = {name: made for name, field in Device().get_fields().items() if (made := _filter(field))}


class DeviceFilter(DeviceFields):
    """Only devices whose members have one of the values given for each, exactly; any of a list counts."""

    default_error_messages = {"unknown": f"devices are filtered by {', '.join(FILTERS)}"}

    def get_fields(self) -> dict[str, Any]:
        return super().get_fields() | {name: _filter(field) for name, field in _filtered()}


def _filtered() -> Iterator[tuple[str, Any]]:
    return ((name, field) for name, field in Device().get_fields().items() if name in FILTERS)


Filters = Mapping[str, frozenset[str]]


def fits(device: Mapping[str, Any], filters: Filters) -> bool:
    """Whether a described device has one of the wanted values in each member."""
    return all(_values(device.get(name)) & wanted for name, wanted in filters.items())


def _values(value: Any) -> set[str]:
    if isinstance(value, list):
        return set(value)
    return {str(value).lower() if isinstance(value, bool) else value}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be answered, and for whom."""

    membership: Membership
    everything: bool
    filters: Filters

    def pieces(self, around: Around) -> Iterator[bytes]:
        """The JSON of the list. The request's scope may have ended by now: each slice is read in its own."""
        yield b'{"devices":['
        before, after, ended = b"", 0, False
        while not ended:
            found = self._slice(after)
            if piece := b",".join(self._written(found, around)):
                yield before + piece
                before = b","
            after, ended = found.last, not found.last
        yield b"]}"

    @property
    def _needs_details(self) -> bool:
        return self.everything or any(name in DETAILS for name in self.filters)

    def _slice(self, after: int) -> Slice:
        with scope(tailnet=self.membership.tailnet_id):
            devices = visible_nodes(self.membership)
            return read_slice(devices, after=after, now=timezone.now(), routes=self._needs_details)

    def _written(self, found: Slice, around: Around) -> Iterator[bytes]:
        """The JSON of each device that is asked for."""
        details = self._needs_details
        for facts in found.facts():
            device = describe_facts(facts, around, everything=details)
            if fits(device, self.filters):
                if details and not self.everything:
                    device = {name: device[name] for name in device if name not in DETAILS}
                yield orjson.dumps(device)


# --- the addresses -----------------------------------------------------------------------------------------


class DevicesView(ApiView):
    """``/tailnet/{tailnet}/devices``"""

    @operation(
        "listTailnetDevices", about="List devices", scope=CORE_READ, query=DeviceFilter, answer=Devices
    )
    def get(self, query: dict[str, Any]) -> HttpResponse:
        everything = query.pop("fields", "default") == "all"
        filters = {name: frozenset(values) for name, values in query.items()}
        around = what_is_around(self.caller.tailnet, base_domain=settings.BASE_DOMAIN, everything=everything)
        asked = Asked(self.caller.membership, everything, filters)
        pieces = asked.pieces(around)
        return streamed(self.request._request, pieces, content_type="application/json")


class _OneDevice(ApiView):
    """What the addresses of one device share."""

    def node(self, device_id: str, action: NodeAction = NodeAction.SEE) -> Node:
        return node_for(membership=self.caller.membership, node_id=device_id, action=action)


class DeviceView(_OneDevice):
    """``/device/{device_id}``"""

    @operation("getDevice", about="Get a device", scope=CORE_READ, query=DeviceFields, answer=Device)
    def get(self, device_id: str, query: dict[str, Any]) -> dict[str, Any]:
        everything = query.get("fields") == "all"
        facts = facts_for(
            membership=self.caller.membership, node_id=device_id, now=timezone.now(), routes=everything
        )
        around = what_is_around(
            self.caller.tailnet,
            base_domain=settings.BASE_DOMAIN,
            everything=everything,
            kind=(facts.app, facts.system),
        )
        return describe_facts(facts, around, everything=everything)

    @operation("deleteDevice", about="Remove a device", scope=CORE)
    def delete(self, device_id: str) -> dict[str, Any]:
        lifecycle.delete_node(node=self.node(device_id, NodeAction.DELETE), by=self.caller.actor)
        return {}


class Authorization(Closed):
    """Whether a device shall be approved."""

    authorized = Flag()


class AuthorizedView(_OneDevice):
    """``/device/{device_id}/authorized``"""

    @operation(
        "authorizeDevice",
        about="Approve a device, or have it wait for approval again",
        scope=CORE,
        body=Authorization,
        example={"authorized": True},
    )
    def post(self, device_id: str, body: dict[str, Any]) -> dict[str, Any]:
        node = self.node(device_id, NodeAction.APPROVE)
        change = lifecycle.approve_node if body["authorized"] else lifecycle.unapprove_node
        change(node=node, by=self.caller.actor)
        return {}


class DeviceName(Closed):
    """A name for a device, short or full; empty = the one that it calls itself."""

    name = Matching(NAME, "laptop", max_length=MAX_NAME, allow_blank=True)


class NameView(_OneDevice):
    """``/device/{device_id}/name``"""

    @operation(
        "setDeviceName", about="Name a device", scope=CORE, body=DeviceName, example={"name": "laptop"}
    )
    def post(self, device_id: str, body: dict[str, Any]) -> dict[str, Any]:
        node = self.node(device_id, NodeAction.RENAME)
        tailnet = self.caller.tailnet.name
        name = short_name(body["name"], tailnet, settings.BASE_DOMAIN)
        if name is None:
            raise Conflict(
                f"full names end with .{tailnet}.{settings.BASE_DOMAIN} here: use that, or a short one"
            )
        with beyond_the_schema():
            lifecycle.rename_node(node=node, name=name, by=self.caller.actor)
        return {}


class DeviceTags(Closed):
    """All tags that a device shall have."""

    tags = Texts(child=Matching(TAG, "tag:server"), max_length=MAX_TAGS)


class TagsView(_OneDevice):
    """``/device/{device_id}/tags``"""

    @operation(
        "setDeviceTags",
        about="Give a device tags",
        scope=CORE,
        body=DeviceTags,
        example={"tags": ["tag:server"]},
    )
    def post(self, device_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """A device with tags belongs to nobody, and cannot be given back to a person. An access token of an
        OAuth client gives only tags that the client has, or that these own by the access rules.
        """
        node = self.node(device_id, NodeAction.TAG)
        tags = body["tags"] or []
        self._check(node, set(tags))
        if tags:
            lifecycle.set_tags(node=node, tags=tags, by=self.caller.actor)
        return {}

    def _check(self, node: Node, tags: set[str]) -> None:
        if not tags and node.is_tagged:
            raise Conflict("a device with tags belongs to nobody without them: sign in on it anew instead")
        given = tags - set(node.tags)
        token = self.caller.token
        beyond = beyond_tags(self.caller.tailnet, token.tags, given) if self.caller.is_client else []
        if beyond:
            raise Forbidden(f"this OAuth client does not have {', '.join(beyond)}, so it cannot give it")


class DeviceKey(Closed):
    """Whether a device's key lasts for ever; ``null`` leaves it as it is."""

    keyExpiryDisabled = Flag(required=False, allow_null=True)


class KeyView(_OneDevice):
    """``/device/{device_id}/key``"""

    @operation(
        "updateDeviceKey",
        about="Switch the expiry of a device's key off or on",
        scope=CORE,
        body=DeviceKey,
        example={"keyExpiryDisabled": True},
    )
    def post(self, device_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """A key that would have expired meanwhile gets a whole period anew."""
        node = self.node(device_id, NodeAction.SET_EXPIRY)
        disabled = body.get("keyExpiryDisabled")
        if disabled is not None:
            lifecycle.set_expiry(node=node, by=self.caller.actor, disabled=disabled)
        return {}


class DeviceAddress(Closed):
    """An IPv4 address for a device; ``null`` leaves it as it is."""

    ipv4 = Matching(IPV4, "100.80.0.1", required=False, allow_null=True)


class AddressView(_OneDevice):
    """``/device/{device_id}/ip``"""

    @operation(
        "setDeviceIp",
        about="Set a device's IPv4 address",
        scope=CORE,
        body=DeviceAddress,
        example={"ipv4": "100.80.0.1"},
    )
    def post(self, device_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Connections to the address that it had so far end."""
        node = self.node(device_id, NodeAction.SET_ADDRESS)
        if body.get("ipv4") is not None:
            lifecycle.set_ipv4(node=node, ipv4=body["ipv4"], by=self.caller.actor)
        return {}


class WantedRoutes(Closed):
    """All prefixes that a device may carry."""

    routes = Texts(child=Matching(PREFIX, "10.0.0.0/16"), max_length=MAX_ROUTES)


class RoutesView(_OneDevice):
    """``/device/{device_id}/routes``"""

    @operation("listDeviceRoutes", about="List a device's routes", scope=ROUTES_READ, answer=DeviceRoutes)
    def get(self, device_id: str) -> dict[str, Any]:
        node = self.node(device_id)
        offered = [(route.prefix, route.approved_at is not None) for route in node.routes.all()]
        return describe_routes(routes_of(node.preapproved_routes, offered))

    @operation(
        "setDeviceRoutes",
        about="Approve a device's routes",
        scope=ROUTES,
        body=WantedRoutes,
        answer=DeviceRoutes,
        example={"routes": ["10.0.0.0/16", "192.168.1.0/24"]},
    )
    def post(self, device_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Of all prefixes exactly these are approved. Those that the device does not offer serve as soon as
        it does. Both default routes make an exit node.
        """
        node = self.node(device_id, NodeAction.APPROVE_ROUTES)
        with beyond_the_schema():
            found = set_enabled_routes(node=node, prefixes=body["routes"] or [], by=self.caller.actor)
        return describe_routes(found)


class ExpireView(_OneDevice):
    """``/device/{device_id}/expire``"""

    @operation("expireDeviceKey", about="Expire a device's key", scope=CORE)
    def post(self, device_id: str) -> dict[str, Any]:
        """Its person must sign in on it anew."""
        lifecycle.expire_node(node=self.node(device_id, NodeAction.EXPIRE), by=self.caller.actor)
        return {}
