"""The API's addresses of devices, of keys, and of people with their devices."""

from __future__ import annotations

from django.urls import path

from nodes.api import keys, users

TAILNET = "api/v2/tailnet/<str:tailnet>"
USER = "api/v2/users/<str:user_id>"

urlpatterns = [
    path(f"{TAILNET}/keys", keys.KeysView.as_view(), name="api-keys"),
    path(f"{TAILNET}/keys/<str:key_id>", keys.KeyView.as_view(), name="api-key"),
    path(f"{TAILNET}/users", users.UsersView.as_view(), name="api-users"),
    path(USER, users.UserView.as_view(), name="api-user"),
    path(f"{USER}/role", users.RoleView.as_view()),
    path(f"{USER}/approve", users.ApproveView.as_view()),
    path(f"{USER}/suspend", users.SuspendView.as_view()),
    path(f"{USER}/restore", users.RestoreView.as_view()),
    path(f"{USER}/delete", users.DeleteView.as_view()),
]
