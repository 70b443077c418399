"""Devices as lines of a CSV file."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from accounts import csvlines
from nodes.rows import DeviceRow

COLUMNS = (
    "name",
    "full_name",
    "state",
    "owner",
    "tags",
    "ipv4",
    "ipv6",
    "os",
    "client_version",
    "path",
    "last_seen",
    "added",
    "key_ends",
    "exit_node",
    "routes",
    "id",
    "notes",
)


def lines(rows: Iterable[DeviceRow]) -> str:
    """One line a device."""
    return csvlines.lines(_cells(row) for row in rows)


def _cells(row: DeviceRow) -> list[str]:
    node = row.node
    return [
        node.name,
        row.full_name,
        row.state.key,
        row.owner,
        " ".join(node.tags),
        node.ipv4,
        node.ipv6,
        row.os_name,
        row.version,
        row.paths.key if row.paths is not None else "",
        "now" if row.online else _iso(row.last_seen),
        _iso(node.created),
        _iso(row.expires),
        "yes" if row.offers.exit_approved else "",
        " ".join(route.prefix for route in row.offers.subnets if route.approved_at is not None),
        node.stable_id,
        node.notes,
    ]


def _iso(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment is not None else ""
