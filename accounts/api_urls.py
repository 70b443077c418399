"""The API's addresses of people and of a tailnet as such."""

from __future__ import annotations

from django.urls import path

from accounts.api import contacts, invites, oauth, settings

TAILNET = "api/v2/tailnet/<str:tailnet>"

urlpatterns = [
    path("api/v2/oauth/token", oauth.TokenView.as_view(), name="api-oauth-token"),
    path(f"{TAILNET}/user-invites", invites.InvitesView.as_view(), name="api-user-invites"),
    path("api/v2/user-invites/<str:invite_id>", invites.InviteView.as_view(), name="api-user-invite"),
    path("api/v2/user-invites/<str:invite_id>/resend", invites.ResendView.as_view()),
    path(f"{TAILNET}/contacts", contacts.ContactsView.as_view(), name="api-contacts"),
    path(f"{TAILNET}/contacts/<str:kind>", contacts.ContactView.as_view(), name="api-contact"),
    path(
        f"{TAILNET}/contacts/<str:kind>/resend-verification-email",
        contacts.VerificationView.as_view(),
        name="api-contact-verification",
    ),
    path(f"{TAILNET}/settings", settings.SettingsView.as_view(), name="api-settings"),
]
