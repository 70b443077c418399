"""The relays that a tailnet's devices may use: where they are, how they do, how far the devices are."""

from __future__ import annotations

from datetime import datetime
from itertools import groupby
from typing import Any

from django.utils import timezone
from rest_framework import serializers

from accounts.api.values import Choice, Closed, Flag, Number, Text
from accounts.api.views import ApiView, operation
from accounts.describe import timestamp
from controlplane.models import Relay
from controlplane.services.latencies import Matrix, Row, latency_matrix
from controlplane.services.ownrelays import shown_relays
from controlplane.services.relaystates import RelayState, load_of, state_of


class RelayStatus(Closed):
    """One relay. Counters are those of its last report, since it started."""

    name = Text(help_text="What the DERP map calls it.")
    host = Text(help_text="Where devices find it.")
    derpPort = Number()
    stunPort = Number(help_text="-1 = it answers no STUN.")
    own = Flag(help_text="Whether it is the tailnet's own, and not the server's.")
    state = Choice(choices=[state.value for state in RelayState])
    version = Text()
    connectedSince = Text(required=False, help_text="Absent while it is not connected.")
    lastSeen = Text(required=False, help_text="Its last report; absent before the first.")
    clients = Number(help_text="Devices that are connected to it.")
    bytesIn = Number()
    bytesOut = Number()
    packets = Number(help_text="Packets that it passed on.")
    drops = Number(help_text="Packets that it dropped.")
    bytesPerSecond = Number(help_text="What it passes on now.")


class Region(Closed):
    """A region of the DERP map."""

    regionId = Number()
    code = Text()
    name = Text()
    relays = RelayStatus(many=True)


class Median(Closed):
    """How far devices are from a region, there and back."""

    regionId = Number()
    latencyMs = serializers.FloatField()


class Distances(Closed):
    """What the devices that have the same home region measured."""

    homeRegionId = Number(required=False, help_text="Absent: all devices.")
    devices = Number(help_text="How many have measured.")
    medians = Median(many=True)


class Relays(Closed):
    """Relays by region, and latencies by home region."""

    regions = Region(many=True)
    latency = Distances(many=True, help_text="All devices first, then those of each home region.")


def describe_relay(relay: Relay, now: datetime) -> dict[str, Any]:
    """A RelayStatus."""
    load = load_of(relay, now)
    described = {
        "name": relay.node_name,
        "host": relay.host_name,
        "derpPort": relay.derp_port,
        "stunPort": relay.stun_port,
        "own": relay.tailnet_id is not None,
        "state": state_of(relay, now).value,
        "version": relay.version,
        "clients": load.clients,
        "bytesIn": load.bytes_in,
        "bytesOut": load.bytes_out,
        "packets": load.packets,
        "drops": load.drops,
        "bytesPerSecond": load.rate,
    }
    if relay.connected_at is not None:
        described["connectedSince"] = timestamp(relay.connected_at)
    if relay.last_seen is not None:
        described["lastSeen"] = timestamp(relay.last_seen)
    return described


def describe_regions(relays: list[Relay], now: datetime) -> list[dict[str, Any]]:
    """The Regions of relays that are in the order of these."""
    regions = []
    for region_id, grouped in groupby(relays, lambda relay: relay.region_id):
        members = list(grouped)
        regions.append(
            {
                "regionId": region_id,
                "code": members[0].region_code,
                "name": members[0].region_name,
                "relays": [describe_relay(relay, now) for relay in members],
            }
        )
    return regions


def describe_latency(matrix: Matrix) -> list[dict[str, Any]]:
    """The Distances of a matrix."""
    return [_distances(row) for row in matrix.rows]


def _distances(row: Row) -> dict[str, Any]:
    medians = [{"regionId": region, "latencyMs": value} for region, value in sorted(row.medians.items())]
    described: dict[str, Any] = {"devices": row.devices, "medians": medians}
    return described | ({"homeRegionId": row.home} if row.home else {})


class RelaysView(ApiView):
    """``/tailnet/{tailnet}/relays``"""

    @operation("listRelays", about="List relays", scope="policy_file:read", answer=Relays)
    def get(self) -> dict[str, Any]:
        """The server's relays and the tailnet's own, what they carry, how far the devices are from them."""
        relays = list(shown_relays(self.caller.tailnet.pk))
        return {
            "regions": describe_regions(relays, timezone.now()),
            "latency": describe_latency(latency_matrix()),
        }
