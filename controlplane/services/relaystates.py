"""How a relay is doing: what its row says of its link and of its last counters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from controlplane.models import Relay

# A relay reports every 5 s; after this long without a word it does not answer.
SILENT_AFTER = timedelta(seconds=20)


class RelayState(StrEnum):
    """Whether a relay serves."""

    UP = "up"
    SILENT = "silent"
    NEW = "new"  # has never connected
    OFF = "off"  # switched off


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a relay reported last. ``clients`` and ``rate`` (bytes a second) are of now: 0 unless it is up."""

    clients: int
    bytes_in: int
    bytes_out: int
    packets: int
    drops: int
    rate: int


def state_of(relay: Relay, now: datetime) -> RelayState:
    """Up while it is connected and has reported lately."""
    heard = relay.last_seen is not None and now - relay.last_seen < SILENT_AFTER
    if relay.last_seen is None or (relay.tailnet_id is not None and not relay.derp_key):
        return RelayState.NEW
    if not relay.enabled:
        return RelayState.OFF
    return RelayState.UP if heard and relay.connected_at is not None else RelayState.SILENT


def load_of(relay: Relay, now: datetime) -> Load:
    """The counters of its last report."""
    stats, is_up = relay.stats, state_of(relay, now) is RelayState.UP
    return Load(
        clients=_counter(stats, "clients") if is_up else 0,
        bytes_in=_counter(stats, "bytes_in"),
        bytes_out=_counter(stats, "bytes_out"),
        packets=_counter(stats, "packets"),
        drops=_counter(stats, "drops"),
        rate=_counter(stats, "rate") if is_up else 0,
    )


def _counter(stats: Any, name: str) -> int:
    value = stats.get(name, 0) if isinstance(stats, dict) else 0
    return value if isinstance(value, int) else 0
