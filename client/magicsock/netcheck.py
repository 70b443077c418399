"""What the network around this node is like, from STUN answers and latencies. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One netcheck. Latencies are seconds by region id; ``None`` = not known."""

    udp: bool = False
    ipv4: bool = False
    ipv6: bool = False
    os_has_ipv6: bool = False
    global_v4: tuple[Address, ...] = ()
    global_v6: tuple[Address, ...] = ()
    mapping_varies_by_dest_ip: bool | None = None
    region_latency: Mapping[int, float] = field(default_factory=dict)
    region_v4_latency: Mapping[int, float] = field(default_factory=dict)
    region_v6_latency: Mapping[int, float] = field(default_factory=dict)
    preferred_derp: int = 0
