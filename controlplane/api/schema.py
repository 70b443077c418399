"""``/api/v2/openapi.json``: the API's description, for whoever asks."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import orjson
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts.api.views import ApiView, operation
from controlplane.api.openapi import JSON, document

CACHE_SECONDS = 300


@cache
def content() -> tuple[bytes, str]:
    """The document as bytes, and its ETag; made at the first request to this process."""
    text = orjson.dumps(document())
    return text, f'"{hashlib.sha256(text).hexdigest()[:32]}"'


class DescriptionView(ApiView):
    """``/openapi.json``"""

    authentication_classes = []

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        APIView.initial(self, request, *args, **kwargs)  # no token is needed

    @operation("getDescription", about="Get this description", answer={"type": "object"})
    def get(self) -> HttpResponse:
        """The whole API in OpenAPI 3.1. Needs no token."""
        text, etag = content()
        headers = {"ETag": etag, "Cache-Control": f"public, max-age={CACHE_SECONDS}"}
        if self.request.headers.get("If-None-Match") == etag:
            return HttpResponse(status=304, headers=headers)
        return HttpResponse(text, content_type=JSON, headers=headers)
