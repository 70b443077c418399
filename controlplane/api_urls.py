"""The API's addresses of the network as a whole, Trenza's own, and the description of all of them."""

from __future__ import annotations

from django.urls import path

from controlplane.api import approvals, exitnodes, paths, relays, schema

OWN = "api/trenza/v1"
OWN_TAILNET = f"{OWN}/tailnet/<str:tailnet>"

urlpatterns = [
    path("api/v2/openapi.json", schema.DescriptionView.as_view(), name="api-description"),
    path(f"{OWN_TAILNET}/approvals", approvals.QueueView.as_view(), name="api-approvals"),
    path(f"{OWN_TAILNET}/approvals/approve", approvals.ApproveView.as_view(), name="api-approve"),
    path(f"{OWN_TAILNET}/approvals/decline", approvals.DeclineView.as_view(), name="api-decline"),
    path(f"{OWN_TAILNET}/relays", relays.RelaysView.as_view(), name="api-relays"),
    path(f"{OWN_TAILNET}/paths", paths.PathsView.as_view(), name="api-paths"),
    path(f"{OWN}/device/<str:device_id>/exit-node", exitnodes.ExitNodeView.as_view(), name="api-exit-node"),
]
