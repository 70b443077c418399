"""allauth's hooks: who may sign in, as whom, and what its flows say.

A person is the provider's issuer and subject. E-mail addresses never match people: they are kept out of
allauth's own tables.
"""

from __future__ import annotations

import base64
import logging
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.authentication import get_authentication_records
from allauth.account.models import EmailAddress
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.providers.base.constants import AuthError
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.contrib import messages
from django.db import IntegrityError, transaction
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from accounts.limits import NO_ADDRESS, address_of, count_attempt
from accounts.openid.errors import SignInRefused

logger = logging.getLogger("trenza.signin")

FAILED_SIGN_INS = "sign-in-failed"
ACCOUNT_PAGE = "/account"
FACTORS = {"webauthn": "passkey", "totp": "authenticator app", "recovery_codes": "recovery code"}


def why(code: str) -> str:
    """A refusal of a provider's answer in the reader's language; the code goes to the server's log."""
    words = {
        "unverified": _("The provider has not verified your e-mail address."),
        "domain": _("Only people of certain organisations may sign in here, and yours is none of them."),
        "cancelled": _("You did not finish signing in at the provider."),
        "unreachable": _("The provider does not answer. Try again in a moment."),
        "state": _("This sign-in was begun elsewhere, is finished already, or took too long. Try again."),
        "race": _("You are signing in twice at once. Try again."),
    }
    return words.get(code) or _("The provider's answer could not be trusted, so nobody was signed in.")


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """No passwords and no sign-up form: people come by link, invitation, provider or passkey."""

    def is_open_for_signup(self, request: Any) -> bool:
        return False

    def login(self, request: Any, user: Any) -> None:
        from accounts.actors import Actor
        from accounts.services import audit

        super().login(request, user)
        audit.record_of_person(
            user=user,
            by=Actor.person(user),
            action="LOGIN",
            details=_how(get_authentication_records(request, user)),
        )

    def post_login(self, request: Any, user: Any, **details: Any) -> Any:
        from accounts.views import with_preferences

        return with_preferences(super().post_login(request, user, **details), user)

    def logout(self, request: Any) -> None:
        from accounts.services.sessions import record_sign_out

        record_sign_out(user=request.user)
        super().logout(request)

    def get_login_redirect_url(self, request: Any) -> str:
        from accounts.views import next_page

        return next_page(request)

    def get_client_ip(self, request: Any) -> str:
        """What the middleware in front of us has made of the socket and of trusted proxies."""
        return address_of(request) or NO_ADDRESS

    def populate_username(self, request: Any, user: Any) -> None:
        """The random name that the model gave stays."""


def _how(records: list[dict[str, Any]]) -> str:
    """The steps of a sign-in, for the audit log."""
    words = []
    for record in records:
        if record["method"] == "socialaccount":
            words.append(f"{record['provider']} account")
        elif record["method"] == "mfa":
            words.append(FACTORS[record["type"]])
    return f"by {' and '.join(words)}" if words else ""


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Sign-in through Google or another OpenID provider; what arrives here has been verified."""

    def is_open_for_signup(self, request: Any, sociallogin: Any) -> bool:
        return True

    def is_auto_signup_allowed(self, request: Any, sociallogin: Any) -> bool:
        return True

    def on_authentication_error(
        self, request: Any, provider: Any, error: Any = None, exception: Any = None, extra_context: Any = None
    ) -> None:
        """Back to where the person came from, with a reason; the attempt counts."""
        code = exception.code if isinstance(exception, SignInRefused) else "error"
        if exception is None:  # allauth's own: with a state it knows, the provider's answer had no code
            known = "state" in (extra_context or {})
            code = "cancelled" if error == AuthError.CANCELLED else "provider" if known else "state"
        logger.warning("a sign-in through %s was refused: %s", provider.sub_id, code)
        count_attempt(FAILED_SIGN_INS, address_of(request))
        raise ImmediateHttpResponse(_back(request, why(code)))

    def pre_social_login(self, request: Any, sociallogin: Any) -> None:
        from accounts.services.profiles import refresh_profile

        if sociallogin.is_existing:
            refresh_profile(user=sociallogin.user, identity=sociallogin.account.extra_data)

    def populate_user(self, request: Any, sociallogin: Any, data: Any) -> Any:
        identity, user = sociallogin.account.extra_data, sociallogin.user
        user.iss, user.sub, user.email = identity["iss"], identity["sub"], identity["email"]
        user.display_name, user.picture_url = identity["name"], identity["picture"]
        user.groups = identity["groups"]
        return user

    def save_user(self, request: Any, sociallogin: Any, form: Any = None) -> Any:
        """A new person and their place in a tailnet, both or neither."""
        from accounts.services.people import welcome
        from accounts.signing_in import came_by_invitation

        try:
            with transaction.atomic():
                user = super().save_user(request, sociallogin, form=form)
                EmailAddress.objects.filter(user=user).delete()
                domain = sociallogin.account.extra_data["hosted_domain"] or None
                welcome(user=user, hosted_domain=domain, invited=came_by_invitation(request))
        except IntegrityError as error:  # the same person, in another tab at this very moment
            raise ImmediateHttpResponse(_back(request, why("race"))) from error
        return user

    def get_connect_redirect_url(self, request: Any, socialaccount: Any) -> str:
        return ACCOUNT_PAGE


def _back(request: Any, message: str) -> Any:
    messages.error(request, message)
    return redirect(ACCOUNT_PAGE if request.user.is_authenticated else settings.LOGIN_URL)


class MFAAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Passkeys belong to the name in TRENZA_URL, whatever Host a request claims; secrets are sealed."""

    def encrypt(self, text: str) -> str:
        return _box(settings.SECRET_KEY).encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return _box(settings.SECRET_KEY).decrypt(encrypted_text.encode()).decode()

    def get_totp_issuer(self) -> str:
        return f"Trenza ({_server_name()})"

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        return {"id": _server_name(), "name": "Trenza"}

    def generate_authenticator_name(self, user: Any, type: Any) -> str:
        return _("Passkey")


def _server_name() -> str:
    return urlsplit(settings.BASE_URL).hostname or ""


@lru_cache(maxsize=2)
def _box(secret: str) -> Fernet:
    """Seals the secrets of second factors with a key made from the server's own."""
    derived = HKDF(SHA256(), length=32, salt=None, info=b"trenza second factors").derive(secret.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
