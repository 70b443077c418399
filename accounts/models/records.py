"""What happened, what is to be sent, and who is at work: rows that services write in their transaction."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from accounts.managers import TenantManager, TenantModel
from accounts.models.tailnets import Tailnet


class AuditEvent(TenantModel):
    """One change, append-only; ``digest`` chains it to the tailnet's event before it."""

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="audit_events")
    event_time = models.DateTimeField(default=timezone.now, db_index=True)
    origin = models.CharField(max_length=20)
    actor_type = models.CharField(max_length=20)
    actor_id = models.CharField(max_length=40, blank=True)
    actor_name = models.CharField(max_length=255, blank=True)
    action = models.CharField(max_length=40)
    target_type = models.CharField(max_length=40)
    target_id = models.CharField(max_length=40, blank=True)
    target_name = models.CharField(max_length=255, blank=True)
    target_property = models.CharField(max_length=40, blank=True)
    old = models.JSONField(null=True, blank=True)
    new = models.JSONField(null=True, blank=True)
    details = models.CharField(max_length=500, blank=True)
    previous = models.CharField(max_length=64, blank=True)
    digest = models.CharField(max_length=64)

    objects = TenantManager["AuditEvent"]()

    class Meta:
        indexes = [
            models.Index(fields=["tailnet", "-id"]),
            models.Index(fields=["tailnet", "target_type", "target_id", "-id"], name="audit_target"),
        ]


class Outbox(TenantModel):
    """A mail or webhook delivery to be made; a sweep delivers it, with retries."""

    class Kind(models.TextChoices):
        MAIL = "mail"
        WEBHOOK = "webhook"

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="outbox")
    kind = models.CharField(max_length=10, choices=Kind)
    target = models.CharField(max_length=500)
    subject = models.CharField(max_length=200, blank=True)
    payload = models.JSONField(default=dict)
    idempotency_key = models.CharField(max_length=100, null=True, blank=True)
    created = models.DateTimeField(default=timezone.now)
    due = models.DateTimeField(default=timezone.now)
    attempts = models.PositiveSmallIntegerField(default=0)
    delivered_at = models.DateTimeField(null=True, blank=True)
    failed_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=500, blank=True)

    objects = TenantManager["Outbox"]()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tailnet", "idempotency_key"], name="one_delivery_per_occasion")
        ]
        indexes = [
            models.Index(
                fields=["due"],
                name="outbox_due",
                condition=models.Q(delivered_at__isnull=True, failed_at__isnull=True),
            )
        ]


class Lease(models.Model):
    """Who may run a periodic task now. Global: a sweep goes over all tailnets."""

    name = models.CharField(max_length=100, unique=True)
    holder = models.CharField(max_length=100)
    since = models.DateTimeField()
    expires = models.DateTimeField()
