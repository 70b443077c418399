"""Devices as lines of a CSV file that spreadsheets open without harm (RFC 4180, UTF-8 with its mark).

Names and notes come from devices and people: a cell that a spreadsheet would take for a formula begins with
an apostrophe (OWASP, "CSV Injection").
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from nodes.rows import DeviceRow

BYTE_ORDER_MARK = "\ufeff"
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
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


def harmless(text: str) -> str:
    """The text as a cell that no spreadsheet calculates."""
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def header() -> str:
    return BYTE_ORDER_MARK + _lines([COLUMNS])


def lines(rows: Iterable[DeviceRow]) -> str:
    """One line a device."""
    return _lines([harmless(cell) for cell in _cells(row)] for row in rows)


def remark(text: str) -> str:
    """A last line that says something of the whole."""
    return _lines([[text]])


def _lines(rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


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
