"""Probes and measures for operators: alive, ready, Prometheus metrics."""

from __future__ import annotations

import asyncio
import secrets

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST

from accounts.changes import LAYER_ERRORS
from accounts.limits import address_of
from controlplane.env import environment
from controlplane.metrics import exposition
from controlplane.middleware import DIRECT

LAYER_SECONDS = 3.0


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Alive: this process answers."""
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Ready: database and channel layer answer. A dead relay does not take the server out of a balancer."""
    problems = [name for name, check in (("database", _database), ("channels", _channels)) if not check()]
    return JsonResponse(
        {"status": "unready" if problems else "ok", "failing": problems}, status=503 if problems else 200
    )


def _database() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


def _channels() -> bool:
    try:
        async_to_sync(_send_nothing)()
    except LAYER_ERRORS:
        return False
    return True


async def _send_nothing() -> None:
    async with asyncio.timeout(LAYER_SECONDS):
        await get_channel_layer().group_send("readyz", {"type": "readyz"})


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus metrics: by ``TRENZA_METRICS_TOKEN`` where it is set, else on this host without a proxy."""
    if not may_read_metrics(request, environment().metrics_token):
        return HttpResponse(status=404)
    return HttpResponse(exposition(), content_type=CONTENT_TYPE_LATEST)


def may_read_metrics(request: HttpRequest, token: str | None) -> bool:
    """Whether the request bears the token; without one to bear, whether it comes straight from this host."""
    if token:
        return secrets.compare_digest(
            request.headers.get("Authorization", "").encode(), f"Bearer {token}".encode()
        )
    return address_of(request) in ("127.0.0.1", "::1") and request.META.get(DIRECT) is True
