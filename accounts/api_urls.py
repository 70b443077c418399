"""The API's addresses of people and of a tailnet as such."""

from __future__ import annotations

from django.urls import path

from accounts.api import settings

TAILNET = "api/v2/tailnet/<str:tailnet>"

urlpatterns = [
    path(f"{TAILNET}/settings", settings.SettingsView.as_view(), name="api-settings"),
]
