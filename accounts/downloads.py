"""Files that are made while they are read, so that a long one is never in memory whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TypeVar, cast

from channels.db import database_sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

Piece = TypeVar("Piece", str, bytes)


def download(request: HttpRequest, pieces: Iterator[str], *, name: str, media_type: str) -> HttpResponse:
    """The answer. Each piece may be made in another thread and after the request's scope has ended.

    So ``pieces`` opens a scope for each and none across two. ``name`` needs no escaping.
    """
    response = streamed(request, pieces, content_type=f"{media_type}; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def streamed(request: HttpRequest, pieces: Iterator[Piece], *, content_type: str) -> HttpResponse:
    """An answer that is sent while it is made, piece by piece, as :func:`download` says."""
    # Of an iterator that is not asynchronous, Django would read all before it sends any to a server's loop.
    content = _awaited(pieces) if isinstance(request, ASGIRequest) else pieces
    response = StreamingHttpResponse(content, content_type=content_type)
    return cast(HttpResponse, response)  # all that wraps views takes either kind


async def _awaited(pieces: Iterator[Piece]) -> AsyncIterator[Piece]:
    read = database_sync_to_async(next)
    while (piece := await read(pieces, None)) is not None:
        yield piece
