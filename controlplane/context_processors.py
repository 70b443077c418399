"""What every page of the panel knows."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from controlplane.env import environment


def panel(request: HttpRequest) -> dict[str, Any]:
    """The public base URL and the current tailnet and membership (``None`` when signed out)."""
    return {
        "base_url": environment().url,
        "tailnet": getattr(request, "tailnet", None),
        "membership": getattr(request, "membership", None),
    }
