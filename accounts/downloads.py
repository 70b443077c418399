"""Files that are made while they are read, so that a long one is never in memory whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import cast

from channels.db import database_sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse


def download(request: HttpRequest, pieces: Iterator[str], *, name: str, media_type: str) -> HttpResponse:
    """The answer. Each piece may be made in another thread and after the request's scope has ended.

    So ``pieces`` opens a scope for each and none across two. ``name`` needs no escaping.
    """
    # Of an iterator that is not asynchronous, Django would read all before it sends any to a server's loop.
    content = _awaited(pieces) if isinstance(request, ASGIRequest) else pieces
    response = StreamingHttpResponse(content, content_type=f"{media_type}; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return cast(HttpResponse, response)  # all that wraps views takes either kind


async def _awaited(pieces: Iterator[str]) -> AsyncIterator[str]:
    read = database_sync_to_async(next)
    while (piece := await read(pieces, None)) is not None:
        yield piece
