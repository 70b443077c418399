"""Where the public API is, and whether this server answers there."""

from __future__ import annotations

from django.conf import settings
from django.urls import Resolver404, resolve

PREFIX = "/api/v2"
DEVICES = f"{PREFIX}/tailnet/-/devices"


def base_url() -> str:
    """The address that clients of the API are given, less their own ``/tailnet/…``."""
    return f"{settings.BASE_URL}{PREFIX}"


def is_answered(path: str = DEVICES) -> bool:
    """Whether this server has something at a path."""
    try:
        resolve(path)
    except Resolver404:
        return False
    return True
