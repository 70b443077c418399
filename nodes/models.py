"""Devices and what lets them in. Keys are stored in their text form (``mkey:…``), secrets as digests."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.fields.json import KT
from django.db.models.functions import Left
from django.utils import timezone

from accounts.managers import TenantManager, TenantModel
from accounts.models import Tailnet, User
from nodes.state import KEY_IS_GOOD, NodeState
from wire.paths import MAX_ENDPOINT

KEY_LENGTH = 80
REPORTED_LENGTH = 64
MAX_LOCAL_USER = 256


def _reported(member: str) -> models.GeneratedField:
    """A column that the database keeps: the start of a text of ``hostinfo``, to filter and count by.

    Of 5,000 devices a query that looks into each Hostinfo itself takes ten times as long.
    """
    return models.GeneratedField(
        expression=Left(KT(f"hostinfo__{member}"), REPORTED_LENGTH),
        output_field=models.CharField(max_length=REPORTED_LENGTH, null=True),
        db_persist=True,
    )


class PreAuthKey(TenantModel):
    """A key (``tskey-auth-…``) that lets machines join without a person at hand."""

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="auth_keys")
    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="auth_keys")
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    public_id = models.CharField(max_length=20, unique=True)
    secret_hash = models.CharField(max_length=64, unique=True)
    description = models.CharField(max_length=200, blank=True)
    reusable = models.BooleanField(default=False)
    ephemeral = models.BooleanField(default=False)
    preauthorized = models.BooleanField(default=False)
    tags = models.JSONField(default=list, blank=True)
    created = models.DateTimeField(default=timezone.now)
    expires = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    uses = models.PositiveIntegerField(default=0)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = TenantManager["PreAuthKey"]()

    class Meta:
        indexes = [models.Index(fields=["tailnet", "-created"])]

    def __str__(self) -> str:
        return f"auth key {self.public_id}"

    def is_valid(self, now: datetime) -> bool:
        """Whether it still lets machines in (its owner's membership is checked apart)."""
        return self.revoked_at is None and self.expires > now and (self.reusable or self.uses == 0)


class Node(TenantModel):
    """A device in a tailnet: one machine key and one owner (a person, or its tags)."""

    class State(models.TextChoices):
        PENDING = NodeState.PENDING.value
        ACTIVE = NodeState.ACTIVE.value
        EXPIRED = NodeState.EXPIRED.value
        LOGGED_OUT = NodeState.LOGGED_OUT.value

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="nodes")
    stable_id = models.CharField(max_length=32, unique=True)
    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="nodes")
    tags = models.JSONField(default=list, blank=True)
    machine_key = models.CharField(max_length=KEY_LENGTH, db_index=True)
    node_key = models.CharField(max_length=KEY_LENGTH, unique=True)
    disco_key = models.CharField(max_length=KEY_LENGTH, blank=True)
    state = models.CharField(max_length=12, choices=State, default=State.PENDING, db_index=True)
    approved_at = models.DateTimeField(null=True, blank=True)
    ephemeral = models.BooleanField(default=False)
    auth_key = models.ForeignKey(PreAuthKey, null=True, on_delete=models.SET_NULL, related_name="nodes")

    # When its keys were last seen in use by two machines at once; none = they are not, or no longer.
    cloned_at = models.DateTimeField(null=True, blank=True)
    clone_details = models.CharField(max_length=200, blank=True)  # the two machines, as far as is known

    hostname = models.CharField(max_length=255, blank=True)
    name = models.CharField(max_length=63)
    name_is_chosen = models.BooleanField(default=False)
    ipv4 = models.GenericIPAddressField(protocol="IPv4")
    ipv6 = models.GenericIPAddressField(protocol="IPv6")

    created = models.DateTimeField(default=timezone.now)
    last_login = models.DateTimeField(default=timezone.now)
    last_seen = models.DateTimeField(null=True, blank=True)
    key_rotated_at = models.DateTimeField(default=timezone.now)
    rotation_asked_at = models.DateTimeField(null=True, blank=True)  # when the schedule asked for a new key
    key_expiry = models.DateTimeField(null=True, blank=True, db_index=True)
    key_expiry_disabled = models.BooleanField(default=False)

    capability_version = models.PositiveIntegerField(default=0)
    hostinfo = models.JSONField(default=dict, blank=True)
    reported_os = _reported("OS")
    reported_distro = _reported("Distro")
    reported_app = _reported("App")
    reported_version = _reported("IPNVersion")
    reported_exit_node = _reported("ExitNodeID")
    endpoints = models.JSONField(default=list, blank=True)
    endpoint_types = models.JSONField(default=list, blank=True)
    home_derp = models.PositiveIntegerField(default=0)
    exit_node = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    notes = models.TextField(blank=True, max_length=4000)
    # Prefixes approved once and for all: each serves whenever the device offers it.
    preapproved_routes: models.JSONField[Any, Any] = models.JSONField(default=list, blank=True)

    objects = TenantManager["Node"]()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tailnet", "machine_key", "user"],
                condition=Q(user__isnull=False),
                name="one_node_per_person",
            ),
            models.UniqueConstraint(
                fields=["tailnet", "machine_key"],
                condition=Q(user__isnull=True),
                name="one_tagged_node_per_machine",
            ),
            models.UniqueConstraint(fields=["tailnet", "name"], name="one_node_per_name"),
            models.UniqueConstraint(fields=["tailnet", "ipv4"], name="one_node_per_ipv4"),
            models.UniqueConstraint(fields=["tailnet", "ipv6"], name="one_node_per_ipv6"),
        ]
        indexes = [
            # All that counting by state and sorting by name read: a list page needs no whole row but its own.
            models.Index(
                fields=["tailnet", "state", "name", "user", "key_expiry", "key_expiry_disabled"],
                name="node_states",
            ),
            models.Index(fields=["tailnet", "user"], name="nodes_by_owner"),
            models.Index(fields=["tailnet", "reported_exit_node"], name="nodes_by_exit_node"),
            models.Index(
                fields=["tailnet", "reported_os", "reported_app", "reported_version"], name="nodes_by_client"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def life(self) -> NodeState:
        return NodeState(self.state)

    @property
    def is_tagged(self) -> bool:
        return self.user_id is None

    @property
    def is_approved(self) -> bool:
        return self.approved_at is not None

    @property
    def expires(self) -> datetime | None:
        """When its key ends or has ended; ``None`` = never (tagged, or switched off)."""
        if self.life in KEY_IS_GOOD and (self.is_tagged or self.key_expiry_disabled):
            return None
        return self.key_expiry

    def key_is_good(self, now: datetime) -> bool:
        """Whether its key is accepted now, whatever the expiry sweep has got to."""
        expires = self.expires
        return self.life in KEY_IS_GOOD and (expires is None or expires > now)


class Route(TenantModel):
    """A prefix that a node offers to route; it serves only while approved. The row goes with the offer.

    One that is neither approved nor declined waits for somebody to decide.
    """

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="routes")
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="routes")
    prefix = models.CharField(max_length=50)
    approved_at = models.DateTimeField(null=True, blank=True)
    declined_at = models.DateTimeField(null=True, blank=True)  # or when its approval was withdrawn
    created = models.DateTimeField(default=timezone.now)

    objects = TenantManager["Route"]()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["node", "prefix"], name="one_route_per_prefix")]

    @property
    def is_exit(self) -> bool:
        return self.prefix in ("0.0.0.0/0", "::/0")

    @property
    def waits(self) -> bool:
        return self.approved_at is None and self.declined_at is None


class PendingLogin(models.Model):
    """A machine that waits for a person to open its AuthURL. Global: of no tailnet until confirmed."""

    token_hash = models.CharField(max_length=64, unique=True)
    machine_key = models.CharField(max_length=KEY_LENGTH, db_index=True)
    node_key = models.CharField(max_length=KEY_LENGTH)
    old_node_key = models.CharField(max_length=KEY_LENGTH, blank=True)
    hostinfo = models.JSONField(default=dict, blank=True)
    ephemeral = models.BooleanField(default=False)
    capability_version = models.PositiveIntegerField(default=0)
    requested_expiry = models.DateTimeField(null=True, blank=True)
    client_address = models.CharField(max_length=45, blank=True)
    client_site = models.CharField(max_length=45, blank=True, db_index=True)  # what limits count: an IPv6 /64
    created = models.DateTimeField(default=timezone.now)
    expires = models.DateTimeField(db_index=True)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    confirmed_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    rejected_at = models.DateTimeField(null=True, blank=True)
    refusal = models.CharField(max_length=300, blank=True)
    node = models.ForeignKey(Node, null=True, on_delete=models.SET_NULL, related_name="+")

    @property
    def hostname(self) -> str:
        return str(self.hostinfo.get("Hostname", ""))


class Presence(TenantModel):
    """Which worker holds a node's map stream. A newer epoch closes an older stream anywhere."""

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="presences")
    node = models.OneToOneField(Node, on_delete=models.CASCADE, related_name="presence")
    worker = models.CharField(max_length=100, blank=True)
    epoch = models.BigIntegerField(default=0)
    connected_at = models.DateTimeField(null=True, blank=True)
    expires = models.DateTimeField(null=True, blank=True, db_index=True)

    objects = TenantManager["Presence"]()

    def is_online(self, now: datetime) -> bool:
        return self.expires is not None and self.expires > now


class PathReport(TenantModel):
    """When a device last said how it reaches its peers; what it said are its :class:`ReportedPath` rows."""

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="path_reports")
    node = models.OneToOneField(Node, on_delete=models.CASCADE, related_name="path_report")
    reported_at = models.DateTimeField()

    objects = TenantManager["PathReport"]()


class ReportedPath(TenantModel):
    """How a device reaches one peer, as it said last: the members of :class:`wire.paths.PeerPath`."""

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="reported_paths")
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="paths")
    peer = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="+")
    endpoint = models.CharField(max_length=MAX_ENDPOINT, blank=True)
    derp_region = models.PositiveIntegerField(default=0)
    reason = models.CharField(max_length=MAX_ENDPOINT, blank=True)
    latency_ms = models.PositiveIntegerField(default=0)

    objects = TenantManager["ReportedPath"]()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["node", "peer"], name="one_path_per_pair")]
        # What others say of a page's devices; by the tailnet alone all paths would be read.
        indexes = [models.Index(fields=["tailnet", "peer"], name="paths_by_peer")]


class PostureAttribute(TenantModel):
    """What somebody has noted about a device for rules to ask: a text, a number, true or false.

    A key is written in one way in the whole tailnet (``folded``: in lower case) and has values of one
    ``kind``.
    """

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="posture_attributes")
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="posture_attributes")
    key = models.CharField(max_length=50)
    folded = models.CharField(max_length=50)
    kind = models.CharField(max_length=10)
    value: models.JSONField[Any, Any] = models.JSONField()
    expires = models.DateTimeField(null=True, blank=True)  # counts as gone from then on

    objects = TenantManager["PostureAttribute"]()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["node", "folded"], name="one_attribute_per_key")]
        indexes = [models.Index(fields=["tailnet", "folded"], name="attributes_by_key")]


class SSHCheck(TenantModel):
    """Somebody who is to show that it is them before they get into a device by SSH, and whether they did.

    Kept for as long as a policy may count it: who has been let in is not asked again for a while.
    """

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="ssh_checks")
    token_hash = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    source = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="+")
    target = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="+")
    local_user = models.CharField(max_length=MAX_LOCAL_USER)
    created = models.DateTimeField(default=timezone.now, db_index=True)
    expires = models.DateTimeField()
    answered_at = models.DateTimeField(null=True, blank=True)
    signed_in_at = models.DateTimeField(null=True, blank=True)  # of whoever was let in; else none

    objects = TenantManager["SSHCheck"]()

    class Meta:
        indexes = [models.Index(fields=["source", "target", "signed_in_at"], name="checks_by_pair")]


GLOBAL_MODELS: tuple[type, ...] = (PendingLogin,)
