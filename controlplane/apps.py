"""The top app: it owns the policy, DNS and relay rows, and ties the apps below it together."""

from __future__ import annotations

from django.apps import AppConfig


class ControlplaneConfig(AppConfig):
    name = "controlplane"
    label = "controlplane"
    default_auto_field = "django.db.models.BigAutoField"
