"""Addresses of the panel's top pages and of what machines download."""

from __future__ import annotations

from django.urls import path

from controlplane import views
from controlplane.views import (
    access,
    dns,
    logs,
    my_devices,
    overview,
    picture,
    relays,
    search,
    settings,
    tailnets,
)

urlpatterns = [
    path("", overview.page, name="home"),
    path("access", access.page, name="access"),
    path("my-devices", my_devices.page, name="my-devices"),
    path("admin", views.admin, name="admin"),
    path("admin/<path:rest>", views.admin),
    path("map", picture.page, name="map"),
    path("map/data", picture.data, name="map-data"),
    path("map/devices/<str:node_id>", picture.device, name="map-device"),
    path("relays", relays.page, name="relays"),
    path("relays/latency", relays.latency, name="relay-latency"),
    path("relays/add", relays.add, name="add-relay"),
    path("relays/<int:relay_id>/rename", relays.rename, name="rename-relay"),
    path("relays/<int:relay_id>/enabled", relays.enabled, name="enable-relay"),
    path("relays/<int:relay_id>/token", relays.token, name="renew-relay-token"),
    path("relays/<int:relay_id>/remove", relays.remove, name="remove-relay"),
    path("dns", dns.page, name="dns"),
    path("dns/magic", dns.magic, name="dns-magic"),
    path("dns/override", dns.override, name="dns-override"),
    path("dns/<str:kind>/add", dns.add, name="dns-add"),
    path("dns/<str:kind>/remove", dns.remove, name="dns-remove"),
    path("logs", logs.page, name="logs"),
    path("logs/check", logs.check, name="check-log"),
    path("logs/export/<str:kind>", logs.export, name="export-log"),
    path("settings", settings.page, name="settings"),
    path("settings/rename", settings.rename, name="rename-tailnet"),
    path("settings/card/<str:name>", settings.card, name="settings-card"),
    path("settings/switch/<str:name>", settings.switch, name="settings-switch"),
    path("settings/transfer", tailnets.transfer, name="transfer-tailnet"),
    path("settings/delete", tailnets.delete, name="delete-tailnet"),
    path("settings/<str:name>", settings.save, name="save-settings"),
    path("tailnets", tailnets.mine, name="tailnets"),
    path("tailnets/new", tailnets.new, name="new-tailnet"),
    path("tailnets/<int:tailnet_id>/leave", tailnets.leave, name="leave-tailnet"),
    path("waiting", tailnets.waiting, name="waiting"),
    path("search", search.palette, name="search"),
    path("search/results", search.results, name="search-results"),
    path("shortcuts", search.shortcuts, name="shortcuts"),
    path("download/install.sh", views.install_script, name="install-script"),
    path("download/wheels/", views.download_index, name="wheels"),
    path("download/wheels/<str:name>", views.download_file, {"folder": "wheels/"}, name="wheel"),
    path("download/<str:name>", views.download_file, name="download"),
]
