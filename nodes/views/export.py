"""The list of devices as a CSV file: what its filter selects, in its order, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts import csvlines
from accounts.downloads import download
from accounts.models import Membership
from accounts.pages import membership_of, panel_view
from accounts.tenancy import scope
from nodes import export
from nodes.access import visible_nodes, with_devices
from nodes.listing import DeviceQuery
from nodes.pathwords import paths_of
from nodes.rows import device_row

MAX_ROWS = 20_000
PIECE = 500


@never_cache
@require_safe
@panel_view
def devices_csv(request: HttpRequest) -> HttpResponse:
    """Which devices is settled at once; what they are is read while the file is on its way."""
    membership = with_devices(membership_of(request))
    query = DeviceQuery.parse(request.GET)
    ids = query.select(visible_nodes(membership).prefetch_related(None), timezone.now())
    chosen = list(ids.values_list("pk", flat=True)[: MAX_ROWS + 1])
    end = _end(chosen)
    name = f"{membership.tailnet.name}-devices-{timezone.now():%Y-%m-%d}.csv"
    pieces = _text(membership, chosen[:MAX_ROWS], end)
    return download(request, pieces, name=name, media_type="text/csv")


def _pieces(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), PIECE):
        yield ids[start : start + PIECE]


def _piece(membership: Membership, ids: list[int]) -> str:
    """Some devices' lines; the request's own scope has ended by now."""
    now = timezone.now()
    with scope(tailnet=membership.tailnet_id):
        found = {node.pk: node for node in visible_nodes(membership).filter(pk__in=ids)}
        paths = paths_of(ids, now)
        rows = (
            device_row(
                found[pk],
                membership=membership,
                base_domain=settings.BASE_DOMAIN,
                now=now,
                paths=paths.get(pk),
            )
            for pk in ids
            if pk in found
        )
        return export.lines(rows)


def _end(ids: list[int]) -> str:
    """What is said of the rest, while the reader's language is known."""
    if len(ids) <= MAX_ROWS:
        return ""
    said = _("Only the first %(n)d devices are here: filter the list.") % {"n": MAX_ROWS}
    return csvlines.lines([[said]])


def _text(membership: Membership, ids: list[int], end: str) -> Iterator[str]:
    yield csvlines.head(export.COLUMNS)
    for piece in _pieces(ids):
        yield _piece(membership, piece)
    yield end
