"""Every address of the server."""

from __future__ import annotations

from django.urls import include, path

from accounts.api.errors import nothing_here
from controlplane import health
from controlplane.control import endpoints

urlpatterns = [
    path("key", endpoints.key),
    path("ts2021", endpoints.ts2021_without_upgrade),
    path("generate_204", endpoints.generate_204),
    path("verify", endpoints.verify),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
    path("", include("accounts.api_urls")),
    path("", include("nodes.api_urls")),
    path("", include("controlplane.api_urls")),
    path("api/v2/<path:rest>", nothing_here),
    path("api/trenza/<path:rest>", nothing_here),
    path("", include("accounts.urls")),
    path("", include("nodes.urls")),
    path("", include("controlplane.panel_urls")),
]
