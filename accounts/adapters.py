"""allauth's hooks: who may sign in through a provider, and as whom.

A person is the provider's issuer and subject. E-mail addresses never match people: they are kept out of
allauth's own tables, and an address that the provider has not verified signs nobody in.
"""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.conf import settings
from django.contrib import messages
from django.shortcuts import redirect
from django.utils.translation import gettext as _

GOOGLE_ISSUER = "https://accounts.google.com"
PROVIDER_ISSUER = "urn:trenza:provider:"  # for one whose token does not say who made it
GOOGLE_ISSUERS = (GOOGLE_ISSUER, "accounts.google.com")
MAX_NAME = 200
MAX_PICTURE_URL = 1000


def verified_claims(login: Any) -> dict[str, Any]:
    """The claims of the verified ID token, wherever allauth's provider has put them."""
    data: dict[str, Any] = login.account.extra_data or {}
    token = data.get("id_token")
    return token if isinstance(token, dict) else data


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """No passwords and no sign-up form: people come by link, invitation or provider."""

    def is_open_for_signup(self, request: Any) -> bool:
        return False

    def login(self, request: Any, user: Any) -> None:
        from accounts.actors import Actor
        from accounts.services import audit

        super().login(request, user)
        audit.record_of_person(
            user=user, by=Actor.person(user), action="LOGIN", details="by an identity provider"
        )

    def populate_username(self, request: Any, user: Any) -> None:
        """The random name that the model gave stays."""


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Sign-in through Google or another OpenID provider."""

    def is_open_for_signup(self, request: Any, sociallogin: Any) -> bool:
        return True

    def is_auto_signup_allowed(self, request: Any, sociallogin: Any) -> bool:
        return True

    def pre_social_login(self, request: Any, sociallogin: Any) -> None:
        # `is True`, not truth: a provider that says "false" as text must not count as verified.
        if verified_claims(sociallogin).get("email_verified") is not True:
            messages.error(request, _("The provider has not verified your e-mail address."))
            raise ImmediateHttpResponse(redirect(settings.LOGIN_URL))
        sociallogin.email_addresses = []

    def populate_user(self, request: Any, sociallogin: Any, data: Any) -> Any:
        claims = verified_claims(sociallogin)
        user = sociallogin.user
        provider = sociallogin.account.provider
        user.iss = str(
            claims.get("iss") or (GOOGLE_ISSUER if provider == "google" else f"{PROVIDER_ISSUER}{provider}")
        )
        user.sub = str(claims.get("sub") or sociallogin.account.uid)
        user.email = str(claims.get("email") or data.get("email") or "")
        user.display_name = str(claims.get("name") or "")[:MAX_NAME]
        picture = str(claims.get("picture") or "")
        user.picture_url = (
            picture if picture.startswith("https://") and len(picture) <= MAX_PICTURE_URL else ""
        )
        return user

    def save_user(self, request: Any, sociallogin: Any, form: Any = None) -> Any:
        from accounts.services.people import welcome

        user = super().save_user(request, sociallogin, form=form)
        # Only Google's word counts for a Google domain: another provider's "hd" proves nothing.
        domain = verified_claims(sociallogin).get("hd") if user.iss in GOOGLE_ISSUERS else None
        welcome(user=user, hosted_domain=domain)
        return user

    def get_connect_redirect_url(self, request: Any, socialaccount: Any) -> str:
        return str(settings.LOGIN_REDIRECT_URL)
