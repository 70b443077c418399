"""Where the public API is."""

from __future__ import annotations

from django.conf import settings

PREFIX = "/api/v2"
OWN_PREFIX = "/api/trenza/v1"
DEVICES = f"{PREFIX}/tailnet/-/devices"
DESCRIPTION = f"{PREFIX}/openapi.json"


def base_url() -> str:
    """The address that clients of the API are given, less their own ``/tailnet/…``."""
    return f"{settings.BASE_URL}{PREFIX}"
