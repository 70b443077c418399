"""The top app: it owns the policy, DNS and relay rows, and ties the apps below it together."""

from __future__ import annotations

from django.apps import AppConfig


class ControlplaneConfig(AppConfig):
    name = "controlplane"
    label = "controlplane"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts.models import Outbox
        from accounts.services import audit, outbox
        from controlplane.services import relays, telling
        from controlplane.services.policyrules import AccessPolicy
        from nodes import policy, regions

        audit.listen(telling.tell_of_event)
        policy.register_policy(AccessPolicy())
        regions.register_names(relays.region_names)
        outbox.register_sender(Outbox.Kind.WEBHOOK.value, telling.send_to_webhook)
