"""Devices and keys as a person may reach them: missing, of another tailnet, and not for them look alike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from django.db.models import Q, QuerySet

from accounts.access import NOT_HERE
from accounts.errors import Forbidden, NotFound
from accounts.models import Membership
from accounts.roles import Capability, can
from nodes.models import Node, PreAuthKey
from nodes.selectors import auth_keys, nodes

MAX_ID = 64  # characters; longer ones name nothing, and Python reads no number of any length


@dataclass(frozen=True, slots=True)
class Needs:
    """What a role must include: for any device, or for one's own (``None`` = not even that)."""

    any: Capability
    own: Capability | None


class NodeAction(Enum):
    """What a person may do with a device, and what it needs."""

    SEE = Needs(Capability.SEE_ALL, Capability.SEE_OWN_DEVICES)
    APPROVE = Needs(Capability.MANAGE_DEVICES, None)
    RENAME = Needs(Capability.MANAGE_DEVICES, Capability.MANAGE_OWN_DEVICES)
    ROTATE = Needs(Capability.MANAGE_DEVICES, Capability.MANAGE_OWN_DEVICES)
    EXPIRE = Needs(Capability.MANAGE_DEVICES, Capability.MANAGE_OWN_DEVICES)
    DELETE = Needs(Capability.MANAGE_DEVICES, Capability.MANAGE_OWN_DEVICES)
    SET_EXPIRY = Needs(Capability.MANAGE_DEVICES, None)
    ANNOTATE = Needs(Capability.MANAGE_DEVICES, None)
    SET_EXIT_NODE = Needs(Capability.MANAGE_DEVICES, None)
    TAG = Needs(Capability.MANAGE_DEVICES, None)
    APPROVE_ROUTES = Needs(Capability.MANAGE_NETWORK, None)


def may(membership: Membership | None, action: NodeAction, node: Node) -> bool:
    """Whether the person may do this with this device of their tailnet."""
    if membership is None or node.tailnet_id != membership.tailnet_id:
        return False
    needs = action.value
    if can(membership, needs.any):
        return True
    own = node.user_id is not None and node.user_id == membership.user_id
    return own and needs.own is not None and can(membership, needs.own)


def seen_by(membership: Membership | None, path: str = "") -> Q:
    """The devices that a person sees: all, their own, or none; ``path`` leads to them (``node__``)."""
    if can(membership, Capability.SEE_ALL):
        return Q()
    if membership is not None and can(membership, Capability.SEE_OWN_DEVICES):
        return Q(**{f"{path}user_id": membership.user_id})
    return Q(pk__in=())


def visible_nodes(membership: Membership | None) -> QuerySet[Node]:
    """The devices that a person sees, as :func:`nodes.selectors.nodes` reads them."""
    return nodes().filter(seen_by(membership))


def node_for(*, membership: Membership | None, node_id: Any, action: NodeAction = NodeAction.SEE) -> Node:
    """A device by id or nodeId for an action: NotFound when unseen, Forbidden when it is only seen."""
    text = str(node_id)
    if not text.isprintable() or len(text) > MAX_ID:  # PostgreSQL takes no NUL, and no device is called so
        raise NotFound(NOT_HERE)
    wanted = Q(stable_id=text) | (Q(pk=int(text)) if text.isascii() and text.isdigit() else Q())
    node = visible_nodes(membership).filter(wanted).first()
    if node is None:
        raise NotFound(NOT_HERE)
    if not may(membership, action, node):
        raise Forbidden("your role does not include this")
    return node


def with_devices(membership: Membership | None) -> Membership:
    """The membership, if its role has to do with devices at all; raises :class:`NotFound`."""
    if membership is None or not can(membership, Capability.SEE_OWN_DEVICES):
        raise NotFound(NOT_HERE)
    return membership


def visible_keys(membership: Membership | None) -> QuerySet[PreAuthKey]:
    """The auth keys that a person sees: all, or those of their own devices."""
    if can(membership, Capability.SEE_ALL):
        return auth_keys()
    if membership is not None and can(membership, Capability.CREATE_OWN_KEYS):
        return auth_keys().filter(user_id=membership.user_id)
    return auth_keys().none()


def key_for(*, membership: Membership | None, public_id: str, revoke: bool = False) -> PreAuthKey:
    """An auth key by its public id; to revoke one of others needs CREATE_KEYS."""
    key = visible_keys(membership).filter(public_id=public_id).first()
    if key is None or membership is None:
        raise NotFound(NOT_HERE)
    if revoke and key.user_id != membership.user_id and not can(membership, Capability.CREATE_KEYS):
        raise Forbidden("your role does not include this")
    return key
