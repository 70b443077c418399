"""Devices and keys as a person may reach them: missing, of another tailnet, and not for them look alike."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from django.db.models import Q, QuerySet

from accounts.access import NOT_HERE
from accounts.errors import Forbidden, NotFound
from accounts.models import Membership
from accounts.roles import Capability, can
from nodes.facts import Facts, read_slice
from nodes.models import Node, PreAuthKey
from nodes.selectors import auth_keys, nodes

MAX_PK = 2**63 - 1
MAX_ID = 64  # characters


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
    SET_ADDRESS = Needs(Capability.MANAGE_DEVICES, None)
    SET_POSTURE = Needs(Capability.MANAGE_DEVICES, None)
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
    node = visible_nodes(membership).filter(_called(str(node_id))).first()
    if node is None:
        raise NotFound(NOT_HERE)
    if not may(membership, action, node):
        raise Forbidden("your role does not include this")
    return node


def facts_for(*, membership: Membership | None, node_id: str, now: datetime, routes: bool) -> Facts:
    """What is told of a device by id or nodeId, read as lists read it: a third of what its row costs."""
    devices = visible_nodes(membership).filter(_called(node_id))
    found = next(read_slice(devices, after=0, now=now, routes=routes).facts(), None)
    if found is None:
        raise NotFound(NOT_HERE)
    return found


def nodes_for(
    *, membership: Membership | None, node_ids: Collection[str], action: NodeAction
) -> dict[str, Node]:
    """Several devices, by what each is called in ``node_ids``, in one query; raises as :func:`node_for`."""
    names = [text for text in node_ids if _may_name(text)]
    numbers = [number for text in names if (number := _number(text))]
    rows = Node.objects.filter(seen_by(membership)).filter(Q(stable_id__in=names) | Q(pk__in=numbers))
    by_name: dict[str | int, Node] = {}
    for node in rows:
        by_name |= {node.pk: node, node.stable_id: node}
    found = {text: by_name.get(text) or by_name.get(_number(text)) for text in names}
    wanted = {text: node for text, node in found.items() if node is not None}
    if missing := [text[:MAX_ID] for text in node_ids if text not in wanted]:
        raise NotFound(f"{missing[0]!r}: {NOT_HERE}")
    if not all(may(membership, action, node) for node in wanted.values()):
        raise Forbidden("your role does not include this")
    return wanted


def _called(text: str) -> Q:
    """The device of this id or nodeId."""
    if not _may_name(text):
        return Q(pk__in=())
    number = _number(text)
    return Q(stable_id=text) | (Q(pk=number) if number else Q())


def _may_name(text: str) -> bool:
    """PostgreSQL takes no NUL, Python reads no number of any length, and no device is called so."""
    return text.isprintable() and len(text) <= MAX_ID


def _number(text: str) -> int:
    """An id; 0 for what is none."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    return number if number <= MAX_PK else 0


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
