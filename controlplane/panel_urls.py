"""Addresses of the panel's top pages and of what machines download."""

from __future__ import annotations

from django.urls import path

from controlplane import views
from controlplane.views import dns

urlpatterns = [
    path("", views.home, name="home"),
    path("admin", views.admin, name="admin"),
    path("admin/<path:rest>", views.admin),
    path("relays", views.relays, name="relays"),
    path("dns", dns.page, name="dns"),
    path("dns/magic", dns.magic, name="dns-magic"),
    path("dns/override", dns.override, name="dns-override"),
    path("dns/<str:kind>/add", dns.add, name="dns-add"),
    path("dns/<str:kind>/remove", dns.remove, name="dns-remove"),
    path("download/install.sh", views.install_script, name="install-script"),
    path("download/wheels/", views.download_index, name="wheels"),
    path("download/wheels/<str:name>", views.download_file, {"folder": "wheels/"}, name="wheel"),
    path("download/<str:name>", views.download_file, name="download"),
]
