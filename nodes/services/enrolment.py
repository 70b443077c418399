"""Making a node, or giving the same machine and owner a new key: what every way to join ends in."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.credentials import new_stable_id
from accounts.errors import Conflict
from accounts.models import Tailnet, User
from accounts.services import audit
from nodes.addresses import IPV4_POOL, Addresses, PoolExhausted, Span, allocate
from nodes.hostinfo import hostname, merged, offered_routes
from nodes.models import Node, PreAuthKey
from nodes.names import dns_label, free_name
from nodes.policy import Policy, access_policy
from nodes.services.routes import sync_routes
from nodes.state import login_event, next_state


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """On what terms a machine comes in."""

    user: User | None
    tags: list[str]
    preapproved: bool
    auth_key: PreAuthKey | None
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a machine says of itself when it joins. Keys in text form; ``expiry`` may only shorten."""

    machine_key: str
    node_key: str
    hostinfo: dict[str, Any] = field(default_factory=dict)
    ephemeral: bool = False
    expiry: datetime | None = None
    capability_version: int = 0


def key_expiry(tailnet: Tailnet, requested: datetime | None, now: datetime) -> datetime:
    """When a login made now ends: the tailnet's duration, or sooner when the client asks for it."""
    full = now + timedelta(days=tailnet.key_duration_days)
    return min(requested, full) if requested is not None and requested > now else full


def register_node(
    *,
    tailnet: Tailnet,
    machine: Machine,
    user: User | None = None,
    tags: Collection[str] = (),
    preapproved: bool = False,
    auth_key: PreAuthKey | None = None,
    by: Actor,
    policy: Policy | None = None,
    now: datetime | None = None,
) -> Node:
    """The node of this machine and owner, with this key: found and re-keyed, or made.

    A re-login keeps ID, name, addresses and approval; another owner on the same machine is another node.
    Exactly one of ``user`` and ``tags`` is given. Runs in its own write transaction, or in the caller's.
    Raises :class:`Conflict` when the node key belongs to another node.
    """
    now = now or timezone.now()
    entry = _Entry(user=user, tags=sorted(tags), preapproved=preapproved, auth_key=auth_key, now=now)
    with write(tailnet) as change:
        node = _existing(machine, user)
        try:
            with transaction.atomic():
                if node is None:
                    spans = (policy or access_policy()).address_pool(change.tailnet, user, entry.tags)
                    node = _make(change, machine, entry, spans)
                    action = "CREATE"
                else:
                    _log_in_again(change, node, machine, entry)
                    action = "LOGIN"
        except IntegrityError as error:
            raise Conflict("this node key belongs to another machine") from error
        change.upsert("node", node.pk)
        audit.record(
            tailnet=change.tailnet,
            by=by,
            action=action,
            target_type="NODE",
            target_id=node.stable_id,
            target_name=node.name,
            new={"state": node.state, "addresses": [node.ipv4, node.ipv6], "tags": node.tags},
        )
        offered = offered_routes(node.hostinfo)
        sync_routes(change, node, offered, (policy or access_policy()).approved_routes(node, offered), now)
        return node


def _existing(machine: Machine, user: User | None) -> Node | None:
    mine = Q(user=user) if user is not None else Q(user__isnull=True)
    return Node.objects.select_for_update(of=("self",)).filter(mine, machine_key=machine.machine_key).first()


def _make(change: ChangeSet, machine: Machine, entry: _Entry, spans: Sequence[Span]) -> Node:
    now = entry.now
    approved = entry.preapproved or not change.tailnet.device_approval
    addresses = _free_addresses(spans)
    return Node.objects.create(
        tailnet=change.tailnet,
        stable_id=new_stable_id(),
        user=entry.user,
        tags=entry.tags,
        machine_key=machine.machine_key,
        node_key=machine.node_key,
        state=Node.State.ACTIVE if approved else Node.State.PENDING,
        approved_at=now if approved else None,
        ephemeral=machine.ephemeral,
        auth_key=entry.auth_key,
        hostname=hostname(machine.hostinfo),
        name=free_name(dns_label(hostname(machine.hostinfo)), is_name_taken),
        ipv4=str(addresses.ipv4),
        ipv6=str(addresses.ipv6),
        created=now,
        last_login=now,
        key_rotated_at=now,
        key_expiry=key_expiry(change.tailnet, machine.expiry, now),
        capability_version=machine.capability_version,
        hostinfo=machine.hostinfo,
    )


def _log_in_again(change: ChangeSet, node: Node, machine: Machine, entry: _Entry) -> None:
    now = entry.now
    if node.approved_at is None and (entry.preapproved or not change.tailnet.device_approval):
        node.approved_at = now
    node.state = next_state(node.life, login_event(approved=node.is_approved)).value
    if node.node_key != machine.node_key:
        node.node_key = machine.node_key
        node.key_rotated_at = now
    node.tags = entry.tags
    node.ephemeral = machine.ephemeral
    node.auth_key = entry.auth_key or node.auth_key
    node.last_login = now
    node.key_expiry = key_expiry(change.tailnet, machine.expiry, now)
    node.capability_version = machine.capability_version
    take_hostinfo(node, machine.hostinfo)
    node.save()


def take_hostinfo(node: Node, hostinfo: dict[str, Any]) -> None:
    """Set what a new Hostinfo says, unsaved; a new host name renames the node unless a person named it."""
    if not hostinfo:
        return
    node.hostinfo = merged(node.hostinfo, hostinfo)
    reported = hostname(hostinfo)
    if reported and reported != node.hostname:
        node.hostname = reported
        if not node.name_is_chosen:
            label = dns_label(reported)
            node.name = free_name(label, lambda name: is_name_taken(name, but=node.pk))


def is_name_taken(name: str, but: int = 0) -> bool:
    """Whether another node of the scope's tailnet has this name."""
    return Node.objects.filter(name=name).exclude(pk=but).exists()


def _free_addresses(spans: Sequence[Span]) -> Addresses:
    """Addresses for a new node; ``spans`` are the pool that the policy has for it, none = the whole range."""
    seed = secrets.randbelow(IPV4_POOL.num_addresses)
    if not spans:
        return allocate(_is_address_taken, seed=seed)
    taken = set(Node.objects.values_list("ipv4", flat=True)) | set(
        Node.objects.values_list("ipv6", flat=True)
    )
    try:
        return allocate(
            lambda pair: str(pair.ipv4) in taken or str(pair.ipv6) in taken, seed=seed, spans=spans
        )
    except PoolExhausted as error:
        message = "the address pool that the policy has for this device is full: extend its ipPool"
        raise Conflict(message) from error


def _is_address_taken(addresses: Addresses) -> bool:
    return Node.objects.filter(Q(ipv4=str(addresses.ipv4)) | Q(ipv6=str(addresses.ipv6))).exists()
