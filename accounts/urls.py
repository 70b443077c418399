"""Addresses of signing in and of a person's own choices.

Of allauth's addresses these alone are served: no passwords, no sign-up form, no e-mail addresses of its own.
Where its flows lead to a page of ours, that page also bears the name by which they look for it.
"""

from __future__ import annotations

from itertools import chain

from allauth.account import views as account
from allauth.mfa.base import views as mfa
from allauth.mfa.recovery_codes import views as codes
from allauth.mfa.totp import views as totp
from allauth.mfa.webauthn import views as webauthn
from django.urls import URLPattern, include, path

from accounts import views
from accounts.views import account as own
from accounts.views import contacts, invitation, providers

second_steps = [
    path("authenticate/", mfa.authenticate, name="mfa_authenticate"),
    path("reauthenticate/", mfa.reauthenticate, name="mfa_reauthenticate"),
    path("totp/activate/", totp.activate_totp, name="mfa_activate_totp"),
    path("totp/deactivate/", totp.deactivate_totp, name="mfa_deactivate_totp"),
    path("recovery-codes/", codes.view_recovery_codes, name="mfa_view_recovery_codes"),
    path("recovery-codes/generate/", codes.generate_recovery_codes, name="mfa_generate_recovery_codes"),
    path("webauthn/add/", webauthn.add_webauthn, name="mfa_add_webauthn"),
    path("webauthn/login/", webauthn.login_webauthn, name="mfa_login_webauthn"),
    path("webauthn/reauthenticate/", webauthn.reauthenticate_webauthn, name="mfa_reauthenticate_webauthn"),
    path("webauthn/keys/<int:pk>/edit/", webauthn.edit_webauthn, name="mfa_edit_webauthn"),
    path("webauthn/keys/<int:pk>/remove/", webauthn.remove_webauthn, name="mfa_remove_webauthn"),
]


def provider_paths(name: str) -> list[URLPattern]:
    """The way to a provider, and the one back, which is registered there as the redirect URI."""
    way, chosen = f"accounts/{name}/login/", {"provider": name}
    return [
        path(way, providers.begin, chosen, name=f"{name}_login"),
        path(f"{way}callback/", providers.callback, chosen, name=f"{name}_callback"),
    ]


urlpatterns = [
    path("sign-in", views.sign_in, name="sign-in"),
    path("sign-in", views.sign_in, name="account_login"),
    path("sign-in/link/<str:token>", views.sign_in_link, name="sign-in-link"),
    path("sign-out", views.sign_out, name="sign-out"),
    path("tailnet", views.switch, name="switch-tailnet"),
    path("invite/<str:token>", invitation.invitation, name="invitation"),
    path("contacts/verify/<str:token>", contacts.verify, name="verify-contact"),
    path("preferences", views.preferences, name="preferences"),
    path("account", own.page, name="account"),
    path("account", own.page, name="mfa_index"),
    path("account", own.page, name="mfa_list_webauthn"),
    path("account/sessions/end", own.end_other_sessions, name="end-other-sessions"),
    path("account/sessions/<int:pk>/end", own.end_session, name="end-session"),
    path("account/identities/<int:pk>/remove", own.unlink, name="unlink-identity"),
    *chain.from_iterable(provider_paths(name) for name in ("google", "oidc")),
    path("accounts/inactive/", account.account_inactive, name="account_inactive"),
    path("accounts/reauthenticate/", account.reauthenticate, name="account_reauthenticate"),
    path("accounts/2fa/", include(second_steps)),
]
