"""People, tailnets and who may do what: the app that every other server app builds on."""

from __future__ import annotations

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.contrib.auth.signals import user_logged_in

        from accounts.credentials import digest
        from accounts.services import factors, sessions
        from accounts.tenancy import register_credential

        register_credential("api_token", "accounts.ApiToken", "secret_hash", normalise=digest)
        register_credential("oauth_client", "accounts.OAuthClient", "secret_hash", normalise=digest)
        register_credential("invite", "accounts.Invite", "token_hash", normalise=digest)
        register_credential("contact", "accounts.Contact", "token_hash", normalise=digest)
        user_logged_in.connect(sessions.keep_session, dispatch_uid="trenza-sessions")
        factors.listen()
