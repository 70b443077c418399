"""Posture attributes of devices."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.api.fields import Moment, beyond_the_schema
from accounts.api.values import Closed, Text
from accounts.api.views import ApiView, operation
from nodes.access import NodeAction, node_for, nodes_for
from nodes.facts import timestamp
from nodes.models import Node
from nodes.posture import MAX_NUMBER, MAX_TEXT_VALUE, TEXT_VALUE, Value, is_value, own_attributes
from nodes.selectors import live_attributes
from nodes.services.posture import Wanted, remove_attribute, set_attributes

WRITE, READ = "devices:posture_attributes", "devices:posture_attributes:read"
MAX_COMMENT = 200
NEVER = 1  # the year of Go's empty moment
EXAMPLE = {"value": 87, "expiry": "2030-01-31T12:00:00Z", "comment": "audited"}


VALUES: list[dict[str, Any]] = [
    {"type": "number", "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER},
    {"type": "boolean"},
]
TEXT = {"type": "string", "maxLength": MAX_TEXT_VALUE, "pattern": TEXT_VALUE}


@extend_schema_field({"oneOf": [{"type": "string"}, *VALUES]})
class AnyValue(serializers.Field[Any, Any, Any, Any]):
    """A text, a number, true or false."""


@extend_schema_field({"oneOf": [TEXT, *VALUES]})
class NewValue(serializers.Field[Any, Any, Any, Any]):
    """A short text without blanks, a number, true or false."""

    default_error_messages = {
        "invalid": "is neither true, false, a number nor a text of at most 50 of A-Z, a-z, 0-9, _ and ."
    }

    def to_internal_value(self, data: Any) -> Value:
        if not is_value(data):
            self.fail("invalid")
        found: Value = data
        return found


class Attribute(Closed):
    """What an attribute shall be."""

    value = NewValue()
    expiry = Moment(required=False, allow_null=True, help_text="When it goes by itself.")


class AttributeChange(Attribute):
    """What an attribute shall be, and why."""

    comment = Text(required=False, max_length=MAX_COMMENT, help_text="For the audit log.")


class AttributesChange(Closed):
    """What attributes of several devices shall be, by their IDs and keys; ``null`` removes one."""

    nodes = serializers.DictField(child=serializers.DictField(child=Attribute(allow_null=True)))
    comment = Text(required=False, max_length=MAX_COMMENT, help_text="For the audit log.")


class Attributes(Closed):
    """A device's posture attributes by their keys; those that begin with ``custom:`` were set by people."""

    attributes = serializers.DictField(child=AnyValue())
    expiries = serializers.DictField(child=Moment(), help_text="Of those that go by themselves.")


def wanted(attribute: dict[str, Any] | None) -> Wanted | None:
    if attribute is None:
        return None
    expires: datetime | None = attribute.get("expiry")
    return Wanted(attribute["value"], expires if expires is not None and expires.year > NEVER else None)


def describe_attributes(node: Node) -> dict[str, Any]:
    """Those that it tells, and those that were set."""
    custom = live_attributes(timezone.now()).filter(node=node)
    expiries = {one.key: timestamp(one.expires) for one in custom if one.expires is not None}
    attributes = own_attributes(node.hostinfo) | {one.key: one.value for one in custom}
    return {"attributes": attributes, "expiries": expiries}


class AttributesView(ApiView):
    """``/device/{device_id}/attributes``"""

    @operation(
        "getDevicePostureAttributes", about="Get a device's posture attributes", scope=READ, answer=Attributes
    )
    def get(self, device_id: str) -> dict[str, Any]:
        return describe_attributes(node_for(membership=self.caller.membership, node_id=device_id))


class AttributeView(ApiView):
    """``/device/{device_id}/attributes/{attribute_key}``"""

    def node(self, device_id: str) -> Node:
        membership = self.caller.membership
        return node_for(membership=membership, node_id=device_id, action=NodeAction.SET_POSTURE)

    @operation(
        "setCustomDevicePostureAttributes",
        about="Set a posture attribute",
        scope=WRITE,
        body=AttributeChange,
        answer=Attributes,
        example=EXAMPLE,
    )
    def post(self, device_id: str, attribute_key: str, body: dict[str, Any]) -> dict[str, Any]:
        """Its key is ``custom:`` and at most 43 letters, digits and ``_``. In the whole tailnet a key is
        written in one way, and its values are of one type.
        """
        node = self.node(device_id)
        changes = {node: {attribute_key: wanted(body)}}
        with beyond_the_schema():
            set_attributes(changes=changes, by=self.caller.actor, comment=body.get("comment", ""))
        return describe_attributes(node)

    @operation("deleteCustomDevicePostureAttributes", about="Remove a posture attribute", scope=WRITE)
    def delete(self, device_id: str, attribute_key: str) -> dict[str, Any]:
        remove_attribute(node=self.node(device_id), key=attribute_key, by=self.caller.actor)
        return {}


class DeviceAttributesView(ApiView):
    """``/tailnet/{tailnet}/device-attributes``"""

    @operation(
        "batchUpdateCustomDevicePostureAttributes",
        about="Set and remove posture attributes of several devices",
        scope=WRITE,
        body=AttributesChange,
        example={"nodes": {"n0123CNTRL": {"custom:score": {"value": 87}, "custom:old": None}}},
    )
    def patch(self, body: dict[str, Any]) -> dict[str, Any]:
        """All of it is done, or nothing."""
        nodes = nodes_for(
            membership=self.caller.membership, node_ids=body["nodes"], action=NodeAction.SET_POSTURE
        )
        changes: dict[Node, dict[str, Wanted | None]] = {}
        for name, attributes in body["nodes"].items():
            changes.setdefault(nodes[name], {}).update({key: wanted(one) for key, one in attributes.items()})
        with beyond_the_schema():
            set_attributes(changes=changes, by=self.caller.actor, comment=body.get("comment", ""))
        return {}
