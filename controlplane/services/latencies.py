"""How far devices are from each relay region: what they measured themselves, as medians by home region."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from nodes.hostinfo import region_seconds
from nodes.models import Node

MAX_MEASURED = 1000  # of a larger tailnet those that were seen last speak for the rest
Measured = Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The medians in milliseconds, by region, of ``devices`` whose home is ``home`` (0 = of all)."""

    home: int
    devices: int
    medians: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """``regions`` are those that anybody has measured; ``rows`` the row of all, then one for each home."""

    regions: list[int]
    rows: list[Row]


def latency_matrix() -> Matrix:
    """Of the open scope's tailnet, in one query."""
    measured = Node.objects.exclude(home_derp=0).order_by("-last_seen", "pk")
    rows = measured.values_list("home_derp", "hostinfo__NetInfo__DERPLatency")[:MAX_MEASURED]
    return make_matrix((home, region_seconds(reported)) for home, reported in rows)


def make_matrix(devices: Iterable[tuple[int, Measured]]) -> Matrix:
    """From each device's home and what it measured. Pure."""
    by_home: dict[int, list[Measured]] = defaultdict(list)
    for home, measured in devices:
        if measured:
            by_home[home].append(measured)
    everybody = [one for group in by_home.values() for one in group]
    rows = [_row(home, by_home[home]) for home in sorted(by_home)]
    return Matrix(
        regions=sorted({region for one in everybody for region in one}),
        rows=[_row(0, everybody), *rows] if rows else [],
    )


def _row(home: int, group: list[Measured]) -> Row:
    values: dict[int, list[float]] = defaultdict(list)
    for measured in group:
        for region, seconds in measured.items():
            values[region].append(seconds * 1000)
    return Row(home=home, devices=len(group), medians={r: round(median(v), 1) for r, v in values.items()})
