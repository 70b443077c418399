"""CSV as spreadsheets open it safely, a line at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

BYTE_ORDER_MARK = "\ufeff"  # without it Excel reads UTF-8 as something else
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class _Line:
    """Gives back what :func:`csv.writer` writes."""

    def write(self, text: str) -> str:
        return text


def csv_lines(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """The file, line by line. A text that a spreadsheet would run as a formula begins with an apostrophe.

    Source: OWASP, CSV Injection.
    """
    writer = csv.writer(_Line())
    yield BYTE_ORDER_MARK + writer.writerow(head)
    for row in rows:
        yield writer.writerow([_safe(value) for value in row])


def _safe(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return "'" + value
    return "" if value is None else value
