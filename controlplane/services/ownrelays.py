"""A tailnet's own relays: added, renamed, switched and removed by its people, audited, told to its devices.

A region of the tailnet's DERP map holds one relay. It enters the map when it has connected with its token for
the first time, and stays there while it is enabled.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from accounts.access import NOT_HERE, require_right
from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.credentials import NewSecret, new_url_token
from accounts.errors import Conflict, Invalid, NotFound
from accounts.models import Membership, Tailnet
from accounts.roles import Capability, can
from accounts.services import audit
from controlplane.env import environment
from controlplane.models import LAST_OWN_REGION, Relay
from controlplane.services.relays import dns_addresses

MAX_OWN_RELAYS = 20
FIRST_TAILNET_REGION = 910  # the regions before it are for server-wide relays
MAX_NAME = 60
MAX_HOST = 253
MAX_CODE = 20
NO_STUN = -1
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class MadeRelay:
    """A relay and the token that it proves itself by, which is known only now."""

    relay: Relay
    token: NewSecret


# --- reading ---------------------------------------------------------------------------------------------


def shown_relays(tailnet_id: int) -> QuerySet[Relay]:
    """The server-wide relays and the tailnet's own, by region."""
    return Relay.objects.filter(Q(tailnet=None) | Q(tailnet=tailnet_id)).order_by("region_id", "node_name")


def own_relay_for(*, membership: Membership | None, relay_id: int) -> Relay:
    """A relay that this person may change; missing, another tailnet's and server-wide ones look alike."""
    if membership is None or not can(membership, Capability.MANAGE_RELAYS):
        raise NotFound(NOT_HERE)
    found = Relay.objects.filter(pk=relay_id, tailnet=membership.tailnet_id).first()
    if found is None:
        raise NotFound(NOT_HERE)
    return found


# --- what may be written ---------------------------------------------------------------------------------


def relay_name(text: str) -> str:
    """What a region is called; raises :class:`Invalid`."""
    name = " ".join(text.split())
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise Invalid(f"give the relay a name of at most {MAX_NAME} characters")
    return name


def relay_host(text: str) -> str:
    """A name or address at which every device finds the relay; raises :class:`Invalid`."""
    host = text.strip().strip("[]").rstrip(".").lower()
    wrong = Invalid(f"{text[:80]!r} is no host: write a name like relay.example.com, or an address")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        if len(host) > MAX_HOST or labels[-1].isdigit() or not all(map(LABEL.fullmatch, labels)):
            raise wrong from None
        return host
    if "%" in host or address.is_unspecified or address.is_multicast or address.is_link_local:
        raise wrong
    if address.is_loopback and not _is_loopback(environment().relay_host):
        raise Invalid(f"{address} is another host for each device: give an address that all can reach")
    return str(address)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _code(name: str, taken: set[str]) -> str:
    """A short name for command lines, from the long one; no two in a tailnet."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[: MAX_CODE - 3].strip("-") or "relay"
    numbered = (f"{base}-{number}" for number in range(2, MAX_OWN_RELAYS + 100))
    return base if base not in taken else next(code for code in numbered if code not in taken)


# --- changes ---------------------------------------------------------------------------------------------


def add_relay(
    *, tailnet: Tailnet, by: Actor, name: str, host: str, derp_port: int, stun_port: int = NO_STUN
) -> MadeRelay:
    """A relay of the tailnet's own, not connected yet. ``stun_port`` :data:`NO_STUN` = it answers no STUN."""
    name, host, token = relay_name(name), relay_host(host), new_url_token()
    ipv4, ipv6 = dns_addresses(host)
    with write(tailnet) as change:
        require_right(by, Capability.MANAGE_RELAYS)
        around = list(shown_relays(change.tailnet.pk))
        if sum(one.tailnet_id is not None for one in around) >= MAX_OWN_RELAYS:
            raise Conflict(f"a tailnet can have at most {MAX_OWN_RELAYS} relays of its own: remove one first")
        regions = {one.region_id for one in around}
        region = next(n for n in range(FIRST_TAILNET_REGION, LAST_OWN_REGION + 1) if n not in regions)
        relay = Relay.objects.create(
            tailnet=change.tailnet,
            region_id=region,
            region_code=_code(name, {one.region_code for one in around}),
            region_name=name,
            node_name=f"{region}-{secrets.token_hex(6)}",
            host_name=host,
            ipv4=ipv4,
            ipv6=ipv6,
            derp_port=derp_port,
            stun_port=stun_port,
            token_hash=token.digest,
        )
        change.upsert("relay", relay.pk)
        _record(change, by, relay, "CREATE", new={"name": name, "host": host, "derpPort": derp_port})
    return MadeRelay(relay, token)


def rename_relay(*, relay: Relay, by: Actor, name: str) -> Relay:
    """Call its region something else; the code of command lines stays."""
    name = relay_name(name)
    with _changing(relay, by) as (change, row):
        old, row.region_name = row.region_name, name
        if old != name:
            row.save(update_fields=["region_name"])
            change.upsert("relay", row.pk)
            _record(change, by, row, "UPDATE", subject="NAME", old=old, new=name)
    return row


def set_relay_enabled(*, relay: Relay, by: Actor, enabled: bool) -> Relay:
    """Whether devices may use it. Switched off it stays connected and known, but in no netmap."""
    with _changing(relay, by) as (change, row):
        old, row.enabled = row.enabled, enabled
        if old != enabled:
            row.save(update_fields=["enabled"])
            change.upsert("relay", row.pk)
            _record(change, by, row, "UPDATE", subject="ENABLED", old=old, new=enabled)
    return row


def renew_relay_token(*, relay: Relay, by: Actor) -> MadeRelay:
    """A new token in place of the old one, whose link ends with its next report."""
    token = new_url_token()
    with _changing(relay, by) as (change, row):
        row.token_hash = token.digest
        row.save(update_fields=["token_hash"])
        change.upsert("relay", row.pk)
        _record(change, by, row, "UPDATE", subject="TOKEN")
    return MadeRelay(row, token)


def remove_relay(*, relay: Relay, by: Actor) -> None:
    """Take it from the tailnet: devices leave it at once, its token is worth nothing."""
    with _changing(relay, by) as (change, row):
        _record(change, by, row, "DELETE", old={"name": row.region_name, "host": row.host_name})
        change.delete("relay", row.pk)
        row.delete()


@contextmanager
def _changing(relay: Relay, by: Actor) -> Iterator[tuple[ChangeSet, Relay]]:
    """The relay as it is now, locked with its tailnet; server-wide ones are the operator's."""
    if relay.tailnet_id is None:
        raise NotFound(NOT_HERE)
    with write(relay.tailnet_id) as change:
        require_right(by, Capability.MANAGE_RELAYS)
        row = Relay.objects.filter(pk=relay.pk, tailnet=change.tailnet).first()
        if row is None:
            raise NotFound(NOT_HERE)
        yield change, row


def _record(
    change: ChangeSet,
    by: Actor,
    relay: Relay,
    action: str,
    *,
    subject: str = "",
    old: Any = None,
    new: Any = None,
) -> None:
    audit.record(
        tailnet=change.tailnet,
        by=by,
        action=action,
        target_type="RELAY",
        target_id=relay.pk,
        target_name=relay.region_name,
        target_property=subject,
        old=old,
        new=new,
    )
