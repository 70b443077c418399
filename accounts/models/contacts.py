"""Whom to write to about a tailnet."""

from __future__ import annotations

from django.db import models

from accounts.managers import TenantManager, TenantModel
from accounts.models.tailnets import Tailnet


class Contact(TenantModel):
    """An address that stands for the owner's in one matter.

    It counts once somebody has opened the link that was mailed there; until then ``verified_email`` does, and
    the owner's address where that is empty.
    """

    class Kind(models.TextChoices):
        ACCOUNT = "account"
        SUPPORT = "support"
        SECURITY = "security"

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="contacts")
    kind = models.CharField(max_length=10, choices=Kind)
    email = models.EmailField()
    verified_email = models.EmailField(blank=True)
    token_hash = models.CharField(max_length=64, null=True, blank=True, unique=True)
    expires = models.DateTimeField(null=True, blank=True)

    objects = TenantManager["Contact"]()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tailnet", "kind"], name="one_contact_of_each_kind")]

    @property
    def needs_verification(self) -> bool:
        return self.email != self.verified_email
