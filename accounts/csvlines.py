"""CSV that spreadsheets open without harm (RFC 4180, UTF-8 with its mark), piece by piece.

Names and notes come from devices and people: a cell that a spreadsheet would take for a formula begins with
an apostrophe (OWASP, "CSV Injection").
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

BYTE_ORDER_MARK = "\ufeff"  # without it Excel reads UTF-8 as something else
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def head(columns: Sequence[str]) -> str:
    """The beginning of a file."""
    return BYTE_ORDER_MARK + lines([columns])


def lines(rows: Iterable[Sequence[Any]]) -> str:
    """One line a row; ``None`` is an empty cell."""
    out = io.StringIO()
    csv.writer(out).writerows([_harmless(cell) for cell in row] for row in rows)
    return out.getvalue()


def _harmless(cell: Any) -> Any:
    if isinstance(cell, str) and cell.lstrip(" ").startswith(FORMULA):
        return f"'{cell}"
    return cell
