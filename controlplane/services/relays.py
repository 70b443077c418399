"""Relays: the embedded one's row follows what it reports, and every relay's link and counters are kept."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts.changes import ChangedRow, record_change
from accounts.credentials import digest
from accounts.models import Tailnet
from controlplane.env import Environment, environment
from controlplane.measures import RELAY_BYTES
from controlplane.models import FIRST_OWN_REGION, Relay
from wire.derpmap import PIN_PREFIX
from wire.errors import WireError
from wire.keys import NodePublic

EMBEDDED_NODE = f"{FIRST_OWN_REGION}a"
EMBEDDED_CODE = "trenza"
EMBEDDED_NAME = "Trenza"
COUNTERS = ("clients", "bytes_in", "bytes_out", "packets", "drops")
MAX_COUNTER = 2**63 - 1
MAX_VERSION_LENGTH = 50
FINGERPRINT_LENGTH = 64
# What of a relay's row clients are told (and whether it has ever connected); only a change of these reaches
# netmaps.
MAP_FIELDS = (
    "host_name", "cert_name", "ipv4", "ipv6", "derp_port", "stun_port", "plain", "enabled", "derp_key",
)  # fmt: skip
MIN_RATE_SECONDS = 1.0  # reports that are closer together say nothing of a rate


@dataclass(frozen=True, slots=True)
class RelayIdentity:
    """Which relay a token proved; ``tailnet_id`` is ``None`` for a server-wide one."""

    id: int
    tailnet_id: int | None


def ensure_embedded_relay(env: Environment | None = None) -> Relay:
    """The row of the relay that ``serve`` runs, made at the first start."""
    host = (env or environment()).relay_host
    relay, _ = Relay.objects.get_or_create(
        node_name=EMBEDDED_NODE,
        defaults={
            "region_id": FIRST_OWN_REGION,
            "region_code": EMBEDDED_CODE,
            "region_name": EMBEDDED_NAME,
            "host_name": host,
            "ipv6": "",
            "embedded": True,
            "enabled": False,  # until it has connected and said where it listens
        },
    )
    return relay


def relay_of_token(token: str) -> RelayIdentity | None:
    """The relay that this bearer token belongs to; ``None`` for an unknown one."""
    if not token:
        return None
    kept = _embedded_token()
    if kept and secrets.compare_digest(token.encode(), kept.encode()):
        relay = ensure_embedded_relay()
        return RelayIdentity(relay.pk, None)
    row = Relay.objects.filter(token_hash=digest(token), embedded=False).first()
    return RelayIdentity(row.pk, row.tailnet_id) if row else None


def _embedded_token() -> str:
    env = environment()
    if env.relay_token:
        return env.relay_token
    try:
        return (env.data / "relay.token").read_text().strip()
    except FileNotFoundError:
        return ""


def record_report(*, relay: RelayIdentity, report: Mapping[str, Any]) -> datetime | None:
    """Keep what a relay says of itself: ``hello`` (where and who it is) or ``stats`` (counters).

    After a hello returns since when the relay counts as connected, for :func:`record_disconnect`.
    """
    if report.get("type") == "hello":
        return _record_hello(relay, report)
    _record_stats(relay.id, {name: _counter(report.get(name)) for name in COUNTERS})
    return None


def _record_stats(relay_id: int, counters: dict[str, int]) -> None:
    """Keep the counters, and as ``rate`` the bytes a second that it passed on since those before."""
    now = timezone.now()
    before = Relay.objects.filter(pk=relay_id).values_list("stats", "last_seen").first()
    if before:
        _count_bytes(before[0], counters)
    rate = _rate(before[0], counters, (now - before[1]).total_seconds()) if before and before[1] else 0
    Relay.objects.filter(pk=relay_id).update(stats=counters | {"rate": rate}, last_seen=now)


def _count_bytes(before: Any, counters: Mapping[str, int]) -> None:
    """Add what has come since the report before; a relay that was started again begins at 0."""
    for name, direction in (("bytes_in", "in"), ("bytes_out", "out")):
        old = _counter(before.get(name)) if isinstance(before, dict) else 0
        RELAY_BYTES.labels(direction).inc(counters[name] - (old if counters[name] >= old else 0))


def _rate(before: Any, counters: Mapping[str, int], seconds: float) -> int:
    old = _counter(before.get("bytes_out")) if isinstance(before, dict) else 0
    if seconds < MIN_RATE_SECONDS or not old or counters["bytes_out"] < old:  # it has just started
        return 0
    return int((counters["bytes_out"] - old) / seconds)


def _record_hello(identity: RelayIdentity, report: Mapping[str, Any]) -> datetime:
    """A relay came (back): clients hear of it only when something that they use has changed."""
    now = timezone.now()
    with transaction.atomic():
        relay = Relay.objects.select_for_update().get(pk=identity.id)
        before = [getattr(relay, name) for name in MAP_FIELDS]
        relay.connected_at = relay.last_seen = now
        relay.version = str(report.get("version", ""))[:MAX_VERSION_LENGTH]
        relay.derp_key = _node_key(report.get("derp_key"))
        relay.cert_name = _pin(report)
        if relay.embedded:
            _place_embedded(relay, report)
        relay.save()
        if before != [getattr(relay, name) for name in MAP_FIELDS]:
            _publish(relay)
        return now


def _place_embedded(relay: Relay, report: Mapping[str, Any]) -> None:
    env = environment()
    relay.host_name = env.relay_host
    relay.ipv4, relay.ipv6 = dns_addresses(env.relay_host)
    relay.derp_port = env.relay_port or _port(report.get("derp_port"), relay.derp_port)
    relay.stun_port = _port(report.get("stun_port"), relay.stun_port)
    relay.plain = not env.relay_tls
    relay.enabled = True


def _pin(report: Mapping[str, Any]) -> str:
    """The self-signed certificate that clients shall insist on; "" = one that an authority vouches for."""
    fingerprint = str(report.get("cert_fingerprint") or "")
    is_hex = len(fingerprint) == FINGERPRINT_LENGTH and all(c in "0123456789abcdef" for c in fingerprint)
    return f"{PIN_PREFIX}{fingerprint}" if is_hex else ""


def dns_addresses(host: str) -> tuple[str, str]:
    """A DERP map node's IPv4 and IPv6: a literal address names its family and switches the other off."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "", ""
    return (str(address), "none") if address.version == 4 else ("none", str(address))


def _publish(relay: Relay) -> None:
    """Bump the netmaps that carry this relay: its tailnet's, or everyone's for a server-wide one."""
    tailnets = Tailnet.objects.all()
    if relay.tailnet_id is not None:
        tailnets = tailnets.filter(pk=relay.tailnet_id)
    for tailnet in tailnets:
        record_change(tailnet, [ChangedRow("relay", relay.pk)])


def region_names(tailnet_id: int) -> dict[int, str]:
    """What a tailnet's devices may call relay regions, by their numbers."""
    mine = Q(tailnet__isnull=True) | Q(tailnet=tailnet_id)
    return dict(Relay.objects.filter(mine).values_list("region_id", "region_name"))


def record_disconnect(*, relay: RelayIdentity, since: datetime | None) -> None:
    """The link that said hello at ``since`` is gone, unless the relay has dialled again meanwhile.

    The panel shows it; the relay serves on from its kept list.
    """
    if since is not None:
        ended = Relay.objects.filter(pk=relay.id, connected_at=since)
        ended.update(connected_at=None, last_seen=timezone.now())


def _counter(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value <= MAX_COUNTER else 0


def _port(value: Any, default: int) -> int:
    return value if isinstance(value, int) and 0 < value <= 65535 else default


def _node_key(value: Any) -> str:
    try:
        return str(NodePublic.parse(str(value)))
    except WireError:
        return ""
