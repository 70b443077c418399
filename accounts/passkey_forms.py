"""allauth's forms for passkeys: whatever a stranger sends is a wrong passkey, and nothing worse."""

from __future__ import annotations

import struct
from typing import Any

from allauth.mfa.adapter import get_adapter
from allauth.mfa.webauthn import forms

# What the library that reads credentials raises at a member that is missing, of another type, or cut short.
MALFORMED = (ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error)


class _Given:
    """``clean_credential`` of a form that authenticates."""

    def clean_credential(self) -> Any:
        try:
            return super().clean_credential()  # type: ignore[misc]
        except MALFORMED as error:
            raise get_adapter().validation_error("incorrect_code") from error


class LoginForm(_Given, forms.LoginWebAuthnForm):  # type: ignore[misc]
    """Signing in by a passkey alone."""


class AuthenticateForm(_Given, forms.AuthenticateWebAuthnForm):  # type: ignore[misc]
    """A passkey as the second step."""


class ReauthenticateForm(_Given, forms.ReauthenticateWebAuthnForm):  # type: ignore[misc]
    """A passkey before a change."""


class AddForm(forms.AddWebAuthnForm):  # type: ignore[misc]
    """A new passkey."""

    def clean(self) -> Any:
        try:
            return super().clean()
        except MALFORMED as error:
            raise get_adapter().validation_error("incorrect_code") from error
