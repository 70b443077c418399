"""Addresses of signing in and of a person's own choices."""

from __future__ import annotations

from django.urls import path
from django.views.generic import RedirectView

from accounts import views

to_sign_in = RedirectView.as_view(url="/sign-in", query_string=True)

urlpatterns = [
    path("sign-in", views.sign_in, name="sign-in"),
    path("sign-in/link/<str:token>", views.sign_in_link, name="sign-in-link"),
    path("sign-out", views.sign_out, name="sign-out"),
    path("tailnet", views.switch, name="switch-tailnet"),
    path("preferences", views.preferences, name="preferences"),
    # allauth's own pages are never the way in.
    path("accounts/login/", to_sign_in),
    path("accounts/signup/", to_sign_in),
    path("accounts/social/signup/", to_sign_in),
    path("accounts/email/", to_sign_in),
    path("accounts/password/<path:rest>", to_sign_in),
]
