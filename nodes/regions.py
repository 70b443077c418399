"""What relay regions are called: devices say numbers; the app above, which has the relays, gives names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Names = Callable[[int], Mapping[int, str]]
_sources: list[Names] = []


def register_names(source: Names) -> None:
    """Have a function asked for the names that a tailnet (by its id) knows regions by."""
    _sources.append(source)


def region_names(tailnet_id: int) -> dict[int, str]:
    """Names by number; a region that has none is left out."""
    return {number: name for source in _sources for number, name in source(tailnet_id).items() if name}
