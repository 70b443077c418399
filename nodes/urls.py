"""Addresses of the device pages."""

from __future__ import annotations

from django.urls import path

from nodes.views import approvals, bulk, devices, invites, joining, keys, offers, people, rotation, routes

urlpatterns = [
    path("devices", devices.devices, name="devices"),
    path("devices/add", joining.add, name="add-device"),
    path("devices/add/arrivals", joining.arrivals, name="arrivals"),
    path("devices/bulk", bulk.ask, name="bulk"),
    path("devices/bulk/do", bulk.do, name="bulk-do"),
    path("devices/<str:node_id>", devices.device, name="device"),
    path("devices/<str:node_id>/row", devices.row, name="device-row"),
    path("devices/<str:node_id>/approve", devices.approve, name="approve-device"),
    path("devices/<str:node_id>/reject", devices.reject, name="reject-device"),
    path("devices/<str:node_id>/rename", devices.rename, name="rename-device"),
    path("devices/<str:node_id>/expire", devices.expire, name="expire-device"),
    path("devices/<str:node_id>/delete", devices.delete, name="delete-device"),
    path("devices/<str:node_id>/key-expiry", devices.key_expiry, name="device-key-expiry"),
    path("devices/<str:node_id>/rotate-key", rotation.rotate_key, name="device-rotate-key"),
    path("devices/<str:node_id>/approve-exit-node", offers.approve_exit_node, name="approve-exit-node"),
    path("devices/<str:node_id>/approve-route", offers.approve_route, name="approve-route"),
    path("devices/<str:node_id>/use-exit-node", offers.choose_exit_node, name="use-exit-node"),
    path("approvals", approvals.queue, name="approvals"),
    path("approvals/badge", approvals.badge, name="approvals-badge"),
    path("approvals/approve", approvals.approve, name="approvals-approve"),
    path("approvals/reject", approvals.reject, name="approvals-reject"),
    path("routes", routes.routes, name="routes"),
    path("routes/<int:route_id>", routes.decide_route, name="decide-route"),
    path("routes/exit-nodes/<str:node_id>", routes.decide_exit_node, name="decide-exit-node"),
    path("users", people.people, name="users"),
    path("users/bulk", people.bulk, name="users-bulk"),
    path("users/invite", invites.new, name="invite"),
    path("users/invitations", invites.listing, name="invitations"),
    path("users/invitations/<int:invite_id>/resend", invites.renew, name="resend-invite"),
    path("users/invitations/<int:invite_id>/revoke", invites.revoke, name="revoke-invite"),
    path("users/<int:user_id>", people.person, name="user"),
    path("users/<int:user_id>/row", people.row, name="user-row"),
    path("users/<int:user_id>/<str:action>", people.act, name="act-on-user"),
    path("register/<str:token>", joining.register, name="register"),
    path("keys", keys.keys, name="keys"),
    path("keys/new", keys.new_key, name="new-key"),
    path("keys/download", keys.download, name="download-key"),
    path("keys/<str:public_id>/revoke", keys.revoke, name="revoke-key"),
]
