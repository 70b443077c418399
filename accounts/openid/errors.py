"""Why a sign-in through a provider was refused."""

from __future__ import annotations

from allauth.socialaccount.providers.oauth2.client import OAuth2Error


class SignInRefused(OAuth2Error):  # type: ignore[misc]
    """The provider's answer does not sign anybody in; ``code`` is stable and says why, without any secret.

    allauth's flow catches it as it does its own errors.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code
