"""Devices: how they join, what they are called, when their keys end."""

from __future__ import annotations

from django.apps import AppConfig


class NodesConfig(AppConfig):
    name = "nodes"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts.credentials import digest
        from accounts.tenancy import register_credential

        register_credential("node_key", "nodes.Node", "node_key")
        register_credential("node_id", "nodes.Node", "pk")
        register_credential("ssh_check", "nodes.SSHCheck", "token_hash", normalise=digest)
        register_credential("auth_key", "nodes.PreAuthKey", "secret_hash", normalise=digest)
