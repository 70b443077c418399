"""Credentials that are stored as digests and shown once."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from accounts.managers import TenantManager, TenantModel
from accounts.models.people import User
from accounts.models.tailnets import Tailnet


class ApiToken(TenantModel):
    """An access token of the public API (``tskey-api-…``); acts as its user with at most its scopes."""

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="api_tokens")
    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="api_tokens")
    oauth_client = models.ForeignKey(
        "accounts.OAuthClient", null=True, blank=True, on_delete=models.CASCADE, related_name="access_tokens"
    )
    public_id = models.CharField(max_length=20, unique=True)
    secret_hash = models.CharField(max_length=64, unique=True)
    description = models.CharField(max_length=200, blank=True)
    scopes = models.JSONField(default=list)
    tags = models.JSONField(default=list, blank=True)
    created = models.DateTimeField(default=timezone.now)
    expires = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = TenantManager["ApiToken"]()


class OAuthClient(TenantModel):
    """A client for the OAuth client-credentials grant (``tskey-client-…``)."""

    tailnet = models.ForeignKey(Tailnet, on_delete=models.CASCADE, related_name="oauth_clients")
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    public_id = models.CharField(max_length=20, unique=True)
    secret_hash = models.CharField(max_length=64, unique=True)
    description = models.CharField(max_length=200, blank=True)
    scopes = models.JSONField(default=list)
    tags = models.JSONField(default=list, blank=True)
    created = models.DateTimeField(default=timezone.now)
    updated = models.DateTimeField(auto_now=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = TenantManager["OAuthClient"]()


class SignInLink(models.Model):
    """A link that signs one person in once. Global: it proves who somebody is."""

    token_hash = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sign_in_links")
    tailnet = models.ForeignKey(Tailnet, null=True, on_delete=models.CASCADE, related_name="+")
    created = models.DateTimeField(default=timezone.now)
    expires = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
