"""What every page of the panel knows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from django.http import HttpRequest

from accounts.models import Membership, User
from accounts.roles import Capability, can
from accounts.views import THEME_COOKIE, language_names, theme_names
from controlplane.env import environment
from controlplane.navigation import sections_for
from nodes.approvals import count_waiting, deciding


def panel(request: HttpRequest) -> dict[str, Any]:
    """Addresses, the current tailnet and membership (``None`` when signed out), and the reader's choices.

    What costs a query is a function: templates call it only where they show it.
    """
    user = getattr(request, "user", None)  # error pages may come before the middleware that sets it
    theme = user.theme if isinstance(user, User) else request.COOKIES.get(THEME_COOKIE)
    membership = getattr(request, "membership", None)
    return {
        "base_url": environment().url,
        "base_domain": environment().base_domain,
        "tailnet": getattr(request, "tailnet", None),
        "membership": membership,
        "sees_all": can(membership, Capability.SEE_ALL),
        "has_devices": can(membership, Capability.SEE_OWN_DEVICES),
        "sections": sections_for(membership),
        "pending_count": _pending_counter(membership),
        "theme": theme or "system",
        "languages": language_names(),
        "themes": theme_names,
    }


def _pending_counter(membership: Membership | None) -> Callable[[], int]:
    """Counts what waits for this very person to decide: once a page, however often it is shown."""

    @cache
    def count() -> int:
        kinds = deciding(membership)
        return sum(count_waiting(membership, kinds).values()) if membership is not None and kinds else 0

    return count
