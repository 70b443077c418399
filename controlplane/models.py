"""What the top app owns: policy texts, DNS settings, relays, flow logs, the fingerprints of server keys."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.db import models
from django.utils import timezone

from accounts.managers import TenantManager, TenantModel
from accounts.models import Tailnet, User

FIRST_OWN_REGION = 900
LAST_OWN_REGION = 999


class PolicyVersion(TenantModel):
    """One saved policy text, byte for byte; the highest ``number`` of a tailnet is in force.

    An empty ``text`` stands for the default policy, as a tailnet without versions has it. ``digest`` is the
    SHA-256 of the text in hex.
    """

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="policy_versions")
    number = models.PositiveIntegerField()
    text = models.TextField(blank=True)
    digest = models.CharField(max_length=64)
    author = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    author_name = models.CharField(max_length=255, blank=True)
    comment = models.CharField(max_length=500, blank=True)
    restored = models.PositiveIntegerField(null=True, blank=True)  # the number of the version it repeats
    created = models.DateTimeField(default=timezone.now)

    objects = TenantManager["PolicyVersion"]()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tailnet", "number"], name="one_policy_per_number")]


class DNSSettings(TenantModel):
    """DNS. ``nameservers``: ``{"address", "useWithExitNode"}``; ``split_dns``: domain to list of those."""

    tailnet = models.OneToOneField(Tailnet, on_delete=models.CASCADE, related_name="dns_settings")
    magic_dns = models.BooleanField(default=True)
    override_local_dns = models.BooleanField(default=False)
    nameservers = models.JSONField(default=list, blank=True)
    split_dns = models.JSONField(default=dict, blank=True)
    search_paths = models.JSONField(default=list, blank=True)
    extra_records = models.JSONField(default=list, blank=True)

    objects = TenantManager["DNSSettings"]()


class Relay(models.Model):
    """A relay: server-wide (no tailnet; only the operator changes it) or one tailnet's own. Global."""

    tailnet = models.ForeignKey(
        Tailnet, null=True, blank=True, on_delete=models.CASCADE, related_name="relays"
    )
    region_id = models.PositiveIntegerField()
    region_code = models.CharField(max_length=20)
    region_name = models.CharField(max_length=100)
    node_name = models.CharField(max_length=20, unique=True)
    host_name = models.CharField(max_length=255)
    cert_name = models.CharField(max_length=100, blank=True)
    ipv4 = models.CharField(max_length=15, blank=True)
    ipv6 = models.CharField(max_length=45, blank=True)
    derp_port = models.PositiveIntegerField(default=443)
    stun_port = models.IntegerField(default=3478)
    plain = models.BooleanField(default=False)
    can_port80 = models.BooleanField(default=False)
    latitude = models.FloatField(default=0)
    longitude = models.FloatField(default=0)
    embedded = models.BooleanField(default=False)
    enabled = models.BooleanField(default=True)
    token_hash = models.CharField(max_length=64, null=True, blank=True, unique=True)
    derp_key = models.CharField(max_length=80, blank=True)
    version = models.CharField(max_length=50, blank=True)
    created = models.DateTimeField(default=timezone.now)
    connected_at = models.DateTimeField(null=True, blank=True)
    last_seen = models.DateTimeField(null=True, blank=True)
    stats: models.JSONField[Any, Any] = models.JSONField(default=dict, blank=True)

    class Meta:
        indexes = [models.Index(fields=["region_id"])]

    def __str__(self) -> str:
        return self.node_name


class ServerKey(models.Model):
    """The fingerprint of a long-lived server key kept in DATA: a host with another must not start. Global."""

    name = models.CharField(max_length=50, unique=True)
    fingerprint = models.CharField(max_length=64)
    created = models.DateTimeField(default=timezone.now)


class MailNotices(TenantModel):
    """What a tailnet's people are not mailed about (``off``), and what they have been already (``told``)."""

    tailnet = models.OneToOneField(Tailnet, on_delete=models.CASCADE, related_name="mail_notices")
    off = models.JSONField(default=list, blank=True)
    told = models.JSONField(default=list, blank=True)

    objects = TenantManager["MailNotices"]()


class FlowLog(TenantModel):
    """Whom one device talked to in a minute or so, as it told; it outlives the device.

    ``traffic`` is the JSON of the API's members, compressed to ``size`` bytes.
    """

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="flow_logs", db_index=False)
    stable_id = models.CharField(max_length=32)
    logged = models.DateTimeField()
    start = models.DateTimeField()
    end = models.DateTimeField()
    size = models.PositiveIntegerField()
    traffic = models.BinaryField()

    objects = TenantManager["FlowLog"]()

    class Meta:
        indexes = [models.Index(fields=["tailnet", "logged"], name="flow_logs_by_time")]


class Webhook(TenantModel):
    """An address that is told of what happens. The secret signs what is sent, so it is kept, sealed."""

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="webhooks")
    public_id = models.CharField(max_length=20, unique=True)
    url = models.CharField(max_length=500)
    provider = models.CharField(max_length=20, blank=True)
    subscriptions = models.JSONField(default=list)
    sealed_secret = models.CharField(max_length=300)
    enabled = models.BooleanField(default=True)
    creator = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    creator_name = models.CharField(max_length=255, blank=True)
    created = models.DateTimeField(default=timezone.now)
    updated = models.DateTimeField(default=timezone.now)

    objects = TenantManager["Webhook"]()

    def __str__(self) -> str:
        return f"webhook {self.public_id}"

    @property
    def place(self) -> str:
        """Where it leads, for logs and readers: chat services have a secret in the rest of the address."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


GLOBAL_MODELS: tuple[type, ...] = (Relay, ServerKey)
