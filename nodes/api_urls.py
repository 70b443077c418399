"""The API's addresses of devices, of keys, and of people with their devices."""

from __future__ import annotations

from django.urls import path

from nodes.api import devices, keys, posture, users

TAILNET = "api/v2/tailnet/<str:tailnet>"
DEVICE = "api/v2/device/<str:device_id>"
USER = "api/v2/users/<str:user_id>"
OWN_USER = "api/trenza/v1/users/<str:user_id>"

urlpatterns = [
    path(f"{TAILNET}/devices", devices.DevicesView.as_view(), name="api-devices"),
    path(f"{TAILNET}/device-attributes", posture.DeviceAttributesView.as_view()),
    path(DEVICE, devices.DeviceView.as_view(), name="api-device"),
    path(f"{DEVICE}/authorized", devices.AuthorizedView.as_view()),
    path(f"{DEVICE}/name", devices.NameView.as_view()),
    path(f"{DEVICE}/tags", devices.TagsView.as_view()),
    path(f"{DEVICE}/key", devices.KeyView.as_view()),
    path(f"{DEVICE}/ip", devices.AddressView.as_view()),
    path(f"{DEVICE}/routes", devices.RoutesView.as_view()),
    path(f"{DEVICE}/expire", devices.ExpireView.as_view()),
    path(f"{DEVICE}/attributes", posture.AttributesView.as_view()),
    path(f"{DEVICE}/attributes/<str:attribute_key>", posture.AttributeView.as_view()),
    path(f"{TAILNET}/keys", keys.KeysView.as_view(), name="api-keys"),
    path(f"{TAILNET}/keys/<str:key_id>", keys.KeyView.as_view(), name="api-key"),
    path(f"{TAILNET}/users", users.UsersView.as_view(), name="api-users"),
    path(USER, users.UserView.as_view(), name="api-user"),
    path(f"{USER}/role", users.RoleView.as_view()),
    path(f"{USER}/approve", users.ApproveView.as_view()),
    path(f"{USER}/suspend", users.SuspendView.as_view()),
    path(f"{USER}/restore", users.RestoreView.as_view()),
    path(f"{USER}/delete", users.DeleteView.as_view()),
    path(f"{OWN_USER}/groups", users.GroupsView.as_view(), name="api-groups"),
]
