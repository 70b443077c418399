"""Tailnets and who belongs to them."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

from accounts.managers import TenantManager, TenantModel
from accounts.models.people import User
from accounts.roles import Role

DNS_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
MAX_KEY_DURATION_DAYS = 180
MAX_ROTATION_DAYS = 180


class Tailnet(models.Model):
    """A private network: its own addresses, names, people, devices and rules. Global: it is the scope."""

    name = models.CharField(max_length=63, unique=True, validators=[RegexValidator(rf"^{DNS_LABEL}$")])
    display_name = models.CharField(max_length=200, blank=True)
    created = models.DateTimeField(default=timezone.now)
    netmap_version = models.BigIntegerField(default=0)
    audit_head = models.CharField(max_length=64, blank=True)
    device_approval = models.BooleanField(default=True)
    users_approval = models.BooleanField(default=False)
    key_duration_days = models.PositiveSmallIntegerField(
        default=180, validators=[MinValueValidator(1), MaxValueValidator(MAX_KEY_DURATION_DAYS)]
    )
    auto_renew = models.BooleanField(default=False)
    # How old a node key of a Trenza client may get: 0 = as old as it likes, none = half a sign-in period.
    rotation_days = models.PositiveSmallIntegerField(
        null=True, blank=True, validators=[MaxValueValidator(MAX_ROTATION_DAYS)]
    )
    google_domain = models.CharField(max_length=255, null=True, blank=True, unique=True)
    flow_logging = models.BooleanField(default=False)  # whether Trenza's clients tell who talks to whom

    def __str__(self) -> str:
        return self.name

    @property
    def title(self) -> str:
        return self.display_name or self.name

    @property
    def rotates_after_days(self) -> int:
        """At what age node keys are replaced, in days; 0 = never by schedule."""
        if self.rotation_days is None:
            return max(1, self.key_duration_days // 2)
        return self.rotation_days


class Membership(TenantModel):
    """A person's place in a tailnet."""

    class Status(models.TextChoices):
        ACTIVE = "active"
        SUSPENDED = "suspended"
        NEEDS_APPROVAL = "needs-approval"

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(
        max_length=20, choices=[(role.value, role.value) for role in Role], default=Role.MEMBER
    )
    status = models.CharField(max_length=20, choices=Status, default=Status.ACTIVE)
    created = models.DateTimeField(default=timezone.now)
    last_seen = models.DateTimeField(null=True, blank=True)
    groups = models.JSONField(default=list, blank=True)  # given here, beside those of the person's provider

    objects = TenantManager["Membership"]()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tailnet", "user"], name="one_membership_per_person")]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.tailnet_id} as {self.role}"

    @property
    def is_active(self) -> bool:
        return self.status == self.Status.ACTIVE

    @property
    def all_groups(self) -> list[str]:
        """The groups that access rules know the person by (``group:…``), whoever says so, sorted."""
        return sorted({*self.groups, *self.user.groups})


class Invite(TenantModel):
    """An invitation by e-mail link; whoever opens it signed in joins with the role it names."""

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="invites")
    email = models.EmailField()
    role = models.CharField(
        max_length=20, choices=[(role.value, role.value) for role in Role], default=Role.MEMBER
    )
    token_hash = models.CharField(max_length=64, unique=True)
    invited_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created = models.DateTimeField(default=timezone.now)
    expires = models.DateTimeField()
    accepted_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    accepted_at = models.DateTimeField(null=True, blank=True)

    objects = TenantManager["Invite"]()
