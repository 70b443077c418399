"""Who gets what at every address of the server: one literal table, and nothing of another tailnet anywhere.

An address without a row here fails, and so does a row without an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.cache import cache
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from accounts.roles import Role
from controlplane.consumers import panel
from controlplane.netmap.policy.default import TEXT as DEFAULT_POLICY
from nodes.approvals import Kind, Ref
from nodes.services.sshchecks import begin_check
from tests.controlplane.estate import Belongings, Estate, link_token, login_token, make_estate, visitor_of
from tests.controlplane.test_panel_socket import closing, in_thread, socket
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]

# In the order of the table's columns; a stranger is the owner of the other tailnet.
ROLES = tuple(Role)
VISITORS = ("anonymous", *(role.value for role in ROLES), "stranger")
METHODS = ("GET", "POST")

# Route, method, the status for each visitor, or one for all of them. A method without a line is 405 for all.
TABLE = """
/key                                                        GET  400
/ts2021                                                     GET  400
/ts2021                                                     POST 400
/generate_204                                               GET  204
/verify                                                     POST 400
/healthz                                                    GET  200
/readyz                                                     GET  200
/metrics                                                    GET  404
/sign-in                                                    GET  200 302 302 302 302 302 302 302 302
/sign-in/link/<str:token>                                   GET  302
/sign-out                                                   POST 302
/tailnet                                                    POST 302 302 302 302 302 302 302 302 404
/invite/<str:token>                                         GET  200
/invite/<str:token>                                         POST 302 409 409 409 409 409 409 409 302
/contacts/verify/<str:token>                                GET  410
/contacts/verify/<str:token>                                POST 410
/preferences                                                POST 302
/account                                                    GET  302 200 200 200 200 200 200 200 200
/account/sessions/end                                       POST 302
/account/sessions/<int:pk>/end                              GET  302 200 200 200 200 200 200 200 404
/account/sessions/<int:pk>/end                              POST 302 302 302 302 302 302 302 302 404
/account/identities/<int:pk>/remove                         GET  302 200 200 200 200 200 200 200 404
/account/identities/<int:pk>/remove                         POST 302 302 302 302 302 302 302 302 404
/accounts/google/login/                                     GET  404
/accounts/google/login/                                     POST 404
/accounts/google/login/callback/                            GET  404
/accounts/oidc/login/                                       GET  404
/accounts/oidc/login/                                       POST 404
/accounts/oidc/login/callback/                              GET  404
/accounts/inactive/                                         GET  200
/accounts/reauthenticate/                                   GET  302
/accounts/reauthenticate/                                   POST 302
/accounts/2fa/authenticate/                                 GET  302
/accounts/2fa/authenticate/                                 POST 302
/accounts/2fa/reauthenticate/                               GET  302
/accounts/2fa/reauthenticate/                               POST 302
/accounts/2fa/totp/activate/                                GET  302 200 200 200 200 200 200 200 200
/accounts/2fa/totp/activate/                                POST 302 200 200 200 200 200 200 200 200
/accounts/2fa/totp/deactivate/                              GET  302 404 404 404 404 404 404 404 404
/accounts/2fa/totp/deactivate/                              POST 302 404 404 404 404 404 404 404 404
/accounts/2fa/recovery-codes/                               GET  302 404 404 404 404 404 404 404 404
/accounts/2fa/recovery-codes/                               POST 302 405 405 405 405 405 405 405 405
/accounts/2fa/recovery-codes/generate/                      GET  302 200 200 200 200 200 200 200 200
/accounts/2fa/recovery-codes/generate/                      POST 302
/accounts/2fa/webauthn/add/                                 GET  302 200 200 200 200 200 200 200 200
/accounts/2fa/webauthn/add/                                 POST 302 200 200 200 200 200 200 200 200
/accounts/2fa/webauthn/login/                               GET  302
/accounts/2fa/webauthn/login/                               POST 302
/accounts/2fa/webauthn/reauthenticate/                      GET  302 200 200 200 200 200 200 200 200
/accounts/2fa/webauthn/reauthenticate/                      POST 302
/accounts/2fa/webauthn/keys/<int:pk>/edit/                  GET  302 200 200 200 200 200 200 200 404
/accounts/2fa/webauthn/keys/<int:pk>/edit/                  POST 302 200 200 200 200 200 200 200 404
/accounts/2fa/webauthn/keys/<int:pk>/remove/                GET  302 200 200 200 200 200 200 200 404
/accounts/2fa/webauthn/keys/<int:pk>/remove/                POST 302 302 302 302 302 302 302 302 404
/devices                                                    GET  302 200 200 200 200 200 404 200 200
/devices/add                                                GET  302 200 200 200 200 200 404 200 200
/devices/add/arrivals                                       GET  302 200 200 200 200 200 404 200 200
/devices/export.csv                                         GET  302 200 200 200 200 200 404 200 200
/devices/clean-up                                           GET  302 200 200 200 404 404 404 200 200
/devices/bulk                                               POST 302 200 200 200 200 200 404 200 200
/devices/bulk/do                                            POST 302 302 302 302 302 302 404 302 302
/devices/<str:node_id>                                      GET  302 200 200 200 200 200 404 404 404
/devices/<str:node_id>/row                                  GET  302 200 200 200 200 200 200 200 200
/devices/<str:node_id>/history                              GET  302 200 200 200 200 200 404 404 404
/devices/<str:node_id>/notes                                GET  302 200 200 200 403 403 404 404 404
/devices/<str:node_id>/notes                                POST 302 302 302 302 403 403 404 404 404
/devices/<str:node_id>/tags                                 GET  302 200 200 200 403 403 404 404 404
/devices/<str:node_id>/tags                                 POST 302 302 302 302 403 403 404 404 404
/devices/<str:node_id>/approve                              POST 302 302 302 302 403 403 404 404 404
/devices/<str:node_id>/reject                               GET  302 200 200 200 403 403 404 404 404
/devices/<str:node_id>/reject                               POST 302 302 302 302 403 403 404 404 404
/devices/<str:node_id>/rename                               GET  302 200 200 200 403 403 404 404 404
/devices/<str:node_id>/rename                               POST 302 302 302 302 403 403 404 404 404
/devices/<str:node_id>/expire                               GET  302 200 200 200 403 403 404 404 404
/devices/<str:node_id>/expire                               POST 302 302 302 302 403 403 404 404 404
/devices/<str:node_id>/delete                               GET  302 200 200 200 403 403 404 404 404
/devices/<str:node_id>/delete                               POST 302 302 302 302 403 403 404 404 404
/devices/<str:node_id>/key-expiry                           POST 302 302 302 302 403 403 404 404 404
/devices/<str:node_id>/rotate-key                           POST 302 409 409 409 403 403 404 404 404
/devices/<str:node_id>/approve-exit-node                    POST 302 302 302 403 302 403 404 404 404
/devices/<str:node_id>/approve-route                        POST 302 302 302 403 302 403 404 404 404
/devices/<str:node_id>/use-exit-node                        POST 302 409 409 409 403 403 404 404 404
/approvals                                                  GET  302 200 200 200 200 200 404 200 200
/approvals/badge                                            GET  302 200 200 200 200 200 200 200 200
/approvals/approve                                          POST 302 302 302 302 409 409 404 409 409
/approvals/reject                                           GET  302 409 409 409 409 409 404 409 409
/approvals/reject                                           POST 302 302 302 302 409 409 404 409 409
/routes                                                     GET  302 200 200 200 200 200 404 404 200
/routes/<int:route_id>                                      POST 302 302 302 403 302 403 404 404 404
/routes/exit-nodes/<str:node_id>                            POST 302 302 302 403 302 403 404 404 404
/users                                                      GET  302 200 200 200 200 200 404 404 200
/users/bulk                                                 POST 302 302 302 302 403 403 404 404 200
/users/invite                                               GET  302 200 200 200 404 404 404 404 200
/users/invite                                               POST 302 200 200 200 404 404 404 404 200
/users/invitations                                          GET  302 200 200 200 200 200 404 404 200
/users/invitations/<int:invite_id>/resend                   GET  302 200 200 200 403 403 404 404 404
/users/invitations/<int:invite_id>/resend                   POST 302 200 200 200 403 403 404 404 404
/users/invitations/<int:invite_id>/revoke                   GET  302 200 200 200 403 403 404 404 404
/users/invitations/<int:invite_id>/revoke                   POST 302 302 302 302 403 403 404 404 404
/users/<int:user_id>                                        GET  302 200 200 200 200 200 404 404 404
/users/<int:user_id>/row                                    GET  302 200 200 200 200 200 200 200 200
/users/<int:user_id>/<str:action>                           GET  302 200 200 200 403 403 404 404 404
/users/<int:user_id>/<str:action>                           POST 302 302 302 302 403 403 404 404 404
/register/<str:token>                                       GET  302 200 200 200 200 200 200 200 200
/register/<str:token>                                       POST 302 200 200 200 200 200 403 200 404
/ssh-check/<str:token>                                      GET  302 200 200 200 200 200 200 200 404
/ssh-check/<str:token>                                      POST 302 200 200 200 200 200 200 200 404
/keys                                                       GET  302 200 200 200 200 200 404 200 200
/keys/new                                                   GET  302 200 200 200 200 404 404 200 200
/keys/new                                                   POST 302 200 200 200 200 404 404 200 200
/keys/download                                              POST 302 200 200 200 200 200 404 404 404
/keys/<str:public_id>/revoke                                GET  302 200 200 200 200 403 404 404 404
/keys/<str:public_id>/revoke                                POST 302 302 302 302 302 403 404 404 404
/keys/tokens/new                                            GET  302 200 200 200 200 404 404 200 200
/keys/tokens/new                                            POST 302 200 200 200 200 404 404 200 200
/keys/tokens/<str:public_id>/revoke                         GET  302 200 200 200 403 403 404 404 404
/keys/tokens/<str:public_id>/revoke                         POST 302 302 302 302 403 403 404 404 404
/keys/clients/new                                           GET  302 200 200 200 404 404 404 404 200
/keys/clients/new                                           POST 302 200 200 200 404 404 404 404 200
/keys/clients/<str:public_id>/revoke                        GET  302 200 200 200 403 403 404 404 404
/keys/clients/<str:public_id>/revoke                        POST 302 302 302 302 403 403 404 404 404
/                                                           GET  302 200 200 200 200 200 302 302 200
/access                                                     GET  302 200 200 200 200 200 404 404 200
/access                                                     POST 302 200 200 404 200 404 404 404 200
/access/news                                                GET  302 200 200 200 200 200 404 404 200
/access/rule                                                POST 302 200 200 404 200 404 404 404 200
/access/edit                                                POST 302 200 200 404 200 404 404 404 200
/access/save                                                POST 302 302 302 404 302 404 404 404 302
/access/versions/<int:number>                               GET  302 200 200 200 200 200 404 404 200
/access/versions/<int:number>/restore                       GET  302 200 200 404 200 404 404 404 200
/access/versions/<int:number>/restore                       POST 302 302 302 404 302 404 404 404 302
/devices/<str:node_id>/access                               GET  302 200 200 200 200 200 404 404 404
/my-devices                                                 GET  302 200 200 200 200 200 200 200 200
/api                                                        GET  302 200 200 200 200 200 404 200 200
/api/calls                                                  GET  302 200 200 200 200 200 404 200 200
/api/reference                                              GET  302 200 200 200 200 200 404 200 200
/admin                                                      GET  302
/admin/<path:rest>                                          GET  302
/map                                                        GET  302 200 200 200 200 200 404 200 200
/map/data                                                   GET  302 200 200 200 200 200 404 200 200
/map/devices/<str:node_id>                                  GET  302 200 200 200 200 200 404 404 404
/relays                                                     GET  302 200 200 200 200 200 404 404 200
/relays/latency                                             GET  302 200 200 200 200 200 404 404 200
/relays/add                                                 GET  302 200 200 404 200 404 404 404 200
/relays/add                                                 POST 302 200 200 404 200 404 404 404 200
/relays/<int:relay_id>/rename                               GET  302 200 200 404 200 404 404 404 404
/relays/<int:relay_id>/rename                               POST 302 302 302 404 302 404 404 404 404
/relays/<int:relay_id>/enabled                              GET  302 200 200 404 200 404 404 404 404
/relays/<int:relay_id>/enabled                              POST 302 302 302 404 302 404 404 404 404
/relays/<int:relay_id>/token                                GET  302 200 200 404 200 404 404 404 404
/relays/<int:relay_id>/token                                POST 302 200 200 404 200 404 404 404 404
/relays/<int:relay_id>/remove                               GET  302 200 200 404 200 404 404 404 404
/relays/<int:relay_id>/remove                               POST 302 302 302 404 302 404 404 404 404
/dns                                                        GET  302 200 200 200 200 200 404 404 200
/dns/magic                                                  GET  302 200 200 404 200 404 404 404 200
/dns/magic                                                  POST 302 302 302 404 302 404 404 404 302
/dns/override                                               POST 302 302 302 404 302 404 404 404 302
/dns/<str:kind>/add                                         GET  302 200 200 404 200 404 404 404 200
/dns/<str:kind>/add                                         POST 302 302 302 404 302 404 404 404 302
/dns/<str:kind>/remove                                      GET  302 200 200 404 200 404 404 404 200
/dns/<str:kind>/remove                                      POST 302 302 302 404 302 404 404 404 302
/logs                                                       GET  302 200 200 200 200 200 404 404 200
/logs/check                                                 POST 302 200 200 200 200 200 404 404 200
/logs/export/<str:kind>                                     GET  302 200 200 200 200 200 404 404 200
/settings                                                   GET  302 200 200 200 200 200 404 404 200
/settings/rename                                            GET  302 200 200 200 404 404 404 404 200
/settings/rename                                            POST 302 302 302 302 404 404 404 404 302
/settings/card/<str:name>                                   GET  302 200 200 200 200 200 404 404 200
/settings/switch/<str:name>                                 POST 302 302 302 302 404 404 404 404 302
/settings/contacts/<str:kind>                               GET  302 200 200 200 404 404 404 404 200
/settings/contacts/<str:kind>                               POST 302 302 302 302 404 404 404 404 302
/settings/contacts/<str:kind>/resend                        POST 302 302 302 302 404 404 404 404 302
/settings/transfer                                          GET  302 200 404 404 404 404 404 404 200
/settings/transfer                                          POST 302 302 404 404 404 404 404 404 422
/settings/delete                                            GET  302 200 404 404 404 404 404 404 200
/settings/delete                                            POST 302 302 404 404 404 404 404 404 422
/settings/webhooks                                          GET  302 200 200 200 200 200 404 404 200
/settings/webhooks/add                                      GET  302 200 200 200 404 404 404 404 200
/settings/webhooks/add                                      POST 302 200 200 200 404 404 404 404 200
/settings/webhooks/<str:public_id>                          GET  302 200 200 200 200 200 404 404 404
/settings/webhooks/<str:public_id>/edit                     GET  302 200 200 200 404 404 404 404 404
/settings/webhooks/<str:public_id>/edit                     POST 302 302 302 302 404 404 404 404 404
/settings/webhooks/<str:public_id>/enabled                  POST 302 302 302 302 404 404 404 404 404
/settings/webhooks/<str:public_id>/test                     POST 302 302 302 302 404 404 404 404 404
/settings/webhooks/<str:public_id>/rotate                   GET  302 200 200 200 404 404 404 404 404
/settings/webhooks/<str:public_id>/rotate                   POST 302 200 200 200 404 404 404 404 404
/settings/webhooks/<str:public_id>/delete                   GET  302 200 200 200 404 404 404 404 404
/settings/webhooks/<str:public_id>/delete                   POST 302 302 302 302 404 404 404 404 404
/settings/webhooks/<str:public_id>/again/<int:delivery_id>  POST 302 302 302 302 404 404 404 404 404
/settings/<str:name>                                        POST 302 302 302 302 404 404 404 404 302
/tailnets                                                   GET  302 200 200 200 200 200 200 200 200
/tailnets/new                                               GET  302 200 200 200 200 200 200 200 200
/tailnets/new                                               POST 302
/tailnets/<int:tailnet_id>/leave                            GET  302 404 200 200 200 200 200 200 404
/tailnets/<int:tailnet_id>/leave                            POST 302 404 302 302 302 302 302 302 404
/waiting                                                    GET  302
/search                                                     GET  302 200 200 200 200 200 200 200 200
/search/results                                             GET  302 200 200 200 200 200 200 200 200
/shortcuts                                                  GET  302 200 200 200 200 200 200 200 200
/download/install.sh                                        GET  200
/download/wheels/                                           GET  404/503
/download/wheels/<str:name>                                 GET  404/503
/download/<str:name>                                        GET  404/503
"""

# The same for what is one's own in another's role: one's own device, key or page as a person.
OWN_COLUMNS = (Role.NETWORK_ADMIN, Role.AUDITOR, Role.BILLING_ADMIN, Role.MEMBER)
OWN_TABLE = """
/devices/<str:node_id>                    GET  200 200 404 200
/devices/<str:node_id>/row                GET  200
/devices/<str:node_id>/history            GET  200 200 404 404
/devices/<str:node_id>/access             GET  200 200 404 404
/devices/<str:node_id>/notes              GET  403 403 404 403
/devices/<str:node_id>/notes              POST 403 403 404 403
/devices/<str:node_id>/tags               GET  403 403 404 403
/devices/<str:node_id>/tags               POST 403 403 404 403
/devices/<str:node_id>/rename             GET  403 403 404 200
/devices/<str:node_id>/rename             POST 403 403 404 302
/devices/<str:node_id>/expire             GET  403 403 404 200
/devices/<str:node_id>/expire             POST 403 403 404 302
/devices/<str:node_id>/delete             GET  403 403 404 200
/devices/<str:node_id>/delete             POST 403 403 404 302
/devices/<str:node_id>/key-expiry         POST 403 403 404 403
/devices/<str:node_id>/rotate-key         POST 403 403 404 409
/devices/<str:node_id>/approve-exit-node  POST 409 403 404 403
/devices/<str:node_id>/approve-route      POST 409 403 404 403
/devices/<str:node_id>/use-exit-node      POST 403 403 404 403
/routes/exit-nodes/<str:node_id>          POST 409 403 404 404
/users/<int:user_id>                      GET  200
/users/<int:user_id>/row                  GET  200
/users/<int:user_id>/<str:action>         GET  403
/users/<int:user_id>/<str:action>         POST 403
/keys/<str:public_id>/revoke              GET  200 200 404 200
/keys/<str:public_id>/revoke              POST 302 302 404 302
/keys/tokens/<str:public_id>/revoke       GET  200
/keys/tokens/<str:public_id>/revoke       POST 302
/map/devices/<str:node_id>                GET  200 200 404 200
"""


# --- addresses, and what fills them ------------------------------------------------------------------------


def routes(patterns: Sequence[URLPattern | URLResolver], prefix: str = "") -> Iterator[str]:
    """Every route of the resolver, with its parameters as they are written there."""
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        else:
            yield route


# The public API knows tokens and no sessions: who signs in is nobody there (test_api_calls.py).
API = ("api/v2/", "api/trenza/")


def every_route() -> list[str]:
    found = dict.fromkeys(routes(get_resolver().url_patterns))
    return [route for route in found if not route.startswith(API)]


WORDS = {
    "dns/<str:kind>/add": {"kind": "search"},
    "dns/<str:kind>/remove": {"kind": "search"},
    "logs/export/<str:kind>": {"kind": "csv"},
    "settings/card/<str:name>": {"name": "general"},
    "settings/switch/<str:name>": {"name": "auto-renew"},
    "settings/contacts/<str:kind>": {"kind": "security"},
    "settings/contacts/<str:kind>/resend": {"kind": "security"},
    "settings/<str:name>": {"name": "general"},
    "download/<str:name>": {"name": "nothing"},
    "download/wheels/<str:name>": {"name": "nothing"},
    "users/<int:user_id>/<str:action>": {"action": "suspend"},
    "access/versions/<int:number>": {"number": "1"},
    "access/versions/<int:number>/restore": {"number": "1"},
    "admin/<path:rest>": {"rest": "machines/100.64.0.1"},
}
OF_A_TAILNET = ("node_id", "route_id", "invite_id", "user_id", "public_id", "relay_id", "tailnet_id", "pk")
WAITING = ("devices/<str:node_id>/approve", "devices/<str:node_id>/reject")


def parameters(route: str, estate: Estate, own: Belongings) -> dict[str, str]:
    """What may stand for each parameter of a route: objects of one tailnet, or of one person."""
    node = estate.waiting if route in WAITING else estate.device
    public_id = estate.key.key.public_id
    others = {
        "webhooks": estate.webhook,
        "keys/tokens": estate.token.token,
        "keys/clients": estate.client.client,
    }
    for part, secret in others.items():
        public_id = secret.public_id if part in route else public_id
    pk = own.passkey.pk if "webauthn" in route else own.session.pk
    token = estate.invite_token
    if "<str:token>" in route and not route.startswith("invite/"):
        token = login_token("somebody") if route.startswith("register/") else link_token(estate.victim.user)
    if route.startswith("ssh-check/"):
        token = begin_check(source=own.device, target=estate.device, local_user="root").token
    values = {
        "node_id": node.stable_id,
        "route_id": estate.route.pk,
        "invite_id": estate.invite.pk,
        "user_id": estate.victim.user_id,
        "public_id": public_id,
        "delivery_id": estate.delivery.pk,
        "relay_id": estate.relay.pk,
        "tailnet_id": estate.tailnet.pk,
        "pk": own.identity.pk if "identities" in route else pk,
        "token": token,
    }
    return {name: str(value) for name, value in values.items()} | WORDS.get(route, {})


def address(route: str, values: dict[str, str]) -> str:
    path = route
    for name, value in values.items():
        for kind in ("str", "int", "path"):
            path = path.replace(f"<{kind}:{name}>", value)
    assert "<" not in path, f"nothing fills {route}"
    return f"/{path}"


def forms(estate: Estate) -> dict[str, dict[str, Any]]:
    """Forms worth sending, by route: those that name objects name this tailnet's."""
    device, waiting = estate.device, estate.waiting
    return {
        "tailnet": {"to": estate.tailnet.pk},
        "register/<str:token>": {"join": estate.tailnet.pk},
        "ssh-check/<str:token>": {"answer": "refuse"},
        "devices/bulk": {"action": "expire", "id": device.stable_id},
        "devices/bulk/do": {"action": "expire", "ids": device.pk},
        "devices/<str:node_id>/rename": {"name": "renamed"},
        "devices/<str:node_id>/tags": {"tags": "tag:web"},
        "devices/<str:node_id>/approve-route": {"prefix": estate.prefix, "approved": "1"},
        "devices/<str:node_id>/approve-exit-node": {"approved": "1"},
        "devices/<str:node_id>/use-exit-node": {"exit_node": device.stable_id},
        "approvals/approve": {"item": str(Ref(Kind.DEVICE, waiting.pk))},
        "approvals/reject": {"item": str(Ref(Kind.DEVICE, waiting.pk)), "sure": "1"},
        "routes/<int:route_id>": {"approved": "1"},
        "routes/exit-nodes/<str:node_id>": {"approved": "1"},
        "users/bulk": {"action": "suspend", "user": estate.victim.user_id, "sure": "1"},
        "users/invite": {"email": "new@example.org", "role": "member"},
        "keys/new": {"days": 1},
        "keys/tokens/new": {"days": 1, "access": "all"},
        "keys/clients/new": {"access": "some", "devices:core": "devices:core"},
        "keys/download": {"secret": estate.key.text, "format": "env"},
        "access": {"text": DEFAULT_POLICY},
        "access/rule": {"text": DEFAULT_POLICY, "section": "grants"},
        "access/edit": {"text": DEFAULT_POLICY, "delete": "grants/0"},
        "access/save": {"text": DEFAULT_POLICY},
        "dns/<str:kind>/add": {"domain": "more.example"},
        "dns/<str:kind>/remove": {"domain": f"search.{estate.word}.example"},
        "dns/override": {"on": "1"},
        "dns/magic": {"on": "1"},
        "relays/add": {"name": "New", "host": "192.0.2.9", "derp_port": 443, "stun_port": 3478},
        "relays/<int:relay_id>/rename": {"name": "Other"},
        "settings/rename": {"name": "other-name"},
        "settings/<str:name>": {"display_name": "Other"},
        "settings/switch/<str:name>": {"on": "1"},
        "settings/contacts/<str:kind>": {"email": "contact@example.org"},
        "settings/webhooks/add": {"url": "https://example.org/", "subscriptions": "nodeCreated"},
        "settings/webhooks/<str:public_id>/edit": {
            "url": "https://example.org/",
            "subscriptions": "nodeCreated",
        },
        "settings/transfer": {"user": estate.victim.user_id},
        "settings/delete": {"name": estate.tailnet.name},
        "tailnets/new": {"name": "one-more"},
    }


# --- visits ------------------------------------------------------------------------------------------------


ELSEWHERE = "192.0.2.200"  # not the server's own host


class Undo(Exception):
    """Raised to have a visit's changes rolled back."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole."""

    status: int
    head: bytes
    body: bytes

    @property
    def refuses(self) -> bool:
        """Also as htmx is told: to leave for another page, or by an empty row."""
        return self.status in (403, 404) or b"HX-Redirect" in self.head or self.is_empty

    @property
    def is_empty(self) -> bool:
        return self.status == 200 and not self.body

    def shows(self, mark: bytes) -> bool:
        return mark in self.head or mark in self.body


def visit(
    visitor: Client, method: str, path: str, form: Mapping[str, Any], look: Callable[[], Any], **headers: str
) -> tuple[Answer, Any]:
    """One request, and what ``look`` sees right after it; nothing of it stays."""
    cache.clear()
    cookies = {name: morsel.value for name, morsel in visitor.cookies.items()}
    try:
        with transaction.atomic():
            send = visitor.get if method == "GET" else visitor.post
            answer = send(path, form if method == "POST" else None, headers=headers, REMOTE_ADDR=ELSEWHERE)
            head = "\n".join(f"{name}: {value}" for name, value in answer.items())
            body = b"".join(answer) if answer.streaming else answer.content
            found = Answer(answer.status_code, head.encode(), body)
            seen = look()
            raise Undo
    except Undo:
        visitor.cookies.clear()
        visitor.cookies.load(cookies)
    return found, seen


# --- the table read ----------------------------------------------------------------------------------------


def read(table: str, columns: int) -> dict[tuple[str, str], list[str]]:
    """``(route, method)`` to the status for each column; several that are right are parted by a slash."""
    found = {}
    for line in table.strip().splitlines():
        route, method, *cells = line.split()
        assert len(cells) in (1, columns), line
        assert (route[1:], method) not in found, line
        found[route[1:], method] = cells * columns if len(cells) == 1 else cells
    return found


MATRIX_SECONDS = 900.0  # every address as everybody, on a machine that has other things to do
EXPECTED = read(TABLE, len(VISITORS))
OWN_EXPECTED = read(OWN_TABLE, len(OWN_COLUMNS))

# Whoever holds such a link is signed in by it, or told who invites them.
FOR_WHOEVER_HOLDS_IT = ("invite/<str:token>", "sign-in/link/<str:token>")
# A row that is no more is an empty answer.
ROWS = ("devices/<str:node_id>/row", "users/<int:user_id>/row")


@dataclass(frozen=True, slots=True)
class Party:
    """A visitor, whose tailnet theirs is, and whose it is not."""

    client: Client
    tailnet_id: int
    own: Belongings
    other: Estate


@pytest.fixture
def estates(db: None, settings: LazySettings) -> tuple[Estate, Estate]:
    settings.MAIL_IS_SET_UP = True
    return _two()


def party(name: str, home: Estate, away: Estate) -> Party:
    owners = home.own[home.owner.pk]
    if name == "anonymous":
        return Party(Client(), home.tailnet.pk, owners, away)
    if name == "stranger":
        return Party(visitor_of(away.places[Role.OWNER]), away.tailnet.pk, owners, home)
    place = home.places[Role(name)]
    return Party(visitor_of(place), home.tailnet.pk, home.own[place.user_id], away)


def leaks(answer: Answer, other: Estate, sent: str) -> list[bytes]:
    """What an answer holds of another tailnet, apart from what the request itself said."""
    return [mark for mark in other.marks if answer.shows(mark) and mark not in sent.encode()]


def test_every_address_has_a_row_and_every_row_an_address() -> None:
    assert {route for route, _ in EXPECTED} == set(every_route())
    assert {route for route, _ in OWN_EXPECTED} <= set(every_route())


@pytest.mark.timeout(MATRIX_SECONDS)
def test_who_gets_what(estates: tuple[Estate, Estate]) -> None:
    """Objects of the first tailnet, as each of its people, as anybody, and as the other one's owner."""
    home, away = estates
    wrong = [f"{name}: {what}" for name in VISITORS for what in visit_everything(name, home, away)]
    assert wrong == []


def visit_everything(name: str, home: Estate, away: Estate) -> Iterator[str]:
    """What a visitor gets otherwise than the table says, sees, or changes."""
    who, column = party(name, home, away), VISITORS.index(name)
    written = forms(home)
    paths = {route: address(route, parameters(route, home, who.own)) for route in every_route()}
    untouched = who.other.fingerprint()
    for (route, path), method in product(paths.items(), METHODS):
        form = {"tailnet": who.tailnet_id} | written.get(route, {})
        answer, after = visit(who.client, method, path, form, who.other.fingerprint)
        right = EXPECTED.get((route, method), ["405"] * len(VISITORS))[column]
        if str(answer.status) not in right.split("/"):
            yield f"{method} /{route}: {answer.status} instead of {right}"
        if route not in FOR_WHOEVER_HOLDS_IT:
            for mark in leaks(answer, who.other, f"{path}{form}"):
                yield f"{method} /{route} shows {mark!r}"
            if name != "anonymous" and after != untouched:
                yield f"{method} /{route} changes the other tailnet"


@pytest.mark.timeout(MATRIX_SECONDS)
def test_nothing_of_another_tailnet_is_there(estates: tuple[Estate, Estate]) -> None:
    """Addresses and forms that name the other tailnet's objects: as if these did not exist."""
    home, away = estates
    wrong = [f"{role}: {what}" for role in ROLES for what in visit_the_other(role, home, away)]
    assert wrong == []


def visit_the_other(role: Role, home: Estate, away: Estate) -> Iterator[str]:
    """What of the other tailnet somebody gets, sees, or changes."""
    who, theirs, written = party(role.value, home, away), away.own[away.owner.pk], forms(away)
    visits = []
    for route in every_route():
        named = [name for name in OF_A_TAILNET if f":{name}>" in route]
        for filled in ([away] if named else []) + ([home] if route in written else []):
            own = theirs if filled is away else who.own
            visits.append((route, filled, address(route, parameters(route, filled, own))))
    untouched = away.fingerprint()
    for (route, filled, path), method in product(visits, METHODS):
        form = {"tailnet": who.tailnet_id} | written.get(route, {})
        answer, after = visit(who.client, method, path, form, away.fingerprint)
        gone = answer.status in (404, 405) or (route in ROWS and answer.is_empty)
        if filled is away and not gone:
            yield f"{method} /{route}: {answer.status}"
        for mark in leaks(answer, away, f"{path}{form}"):
            yield f"{method} /{route} shows {mark!r}"
        if after != untouched:
            yield f"{method} /{route} changes the other tailnet"


def test_what_one_may_do_with_ones_own(estates: tuple[Estate, Estate]) -> None:
    home, away = estates
    wrong = [f"{role}: {what}" for role in OWN_COLUMNS for what in visit_ones_own(role, home, away)]
    assert wrong == []


def visit_ones_own(role: Role, home: Estate, away: Estate) -> Iterator[str]:
    """What somebody gets of their own otherwise than the table says."""
    who, column = party(role.value, home, away), OWN_COLUMNS.index(role)
    mine = {"node_id": who.own.device.stable_id, "user_id": str(home.places[role].user_id)}
    for route in sorted({route for route, _ in OWN_EXPECTED}):
        values = parameters(route, home, who.own)
        secret = who.own.token.token if "tokens" in route else who.own.key.key
        path = address(route, values | mine | {"public_id": secret.public_id})
        form = {"tailnet": who.tailnet_id} | forms(home).get(route, {})
        for method in METHODS:
            answer, _ = visit(who.client, method, path, form, lambda: None)
            right = OWN_EXPECTED.get((route, method), ["405"] * len(OWN_COLUMNS))[column]
            if str(answer.status) != right:
                yield f"{method} /{route}: {answer.status} instead of {right}"


@pytest.mark.timeout(MATRIX_SECONDS)
def test_fragments_are_refused_as_pages_are(estates: tuple[Estate, Estate]) -> None:
    home, away = estates
    names = (Role.IT_ADMIN.value, Role.BILLING_ADMIN.value, Role.MEMBER.value, "stranger")
    wrong = [f"{name}: {what}" for name in names for what in fetch_fragments(name, home, away)]
    assert wrong == []


def fetch_fragments(name: str, home: Estate, away: Estate) -> Iterator[str]:
    """What a visitor gets through htmx otherwise than as a page."""
    who, column = party(name, home, away), VISITORS.index(name)
    fetched = {"HX-Request": "true", "HX-Current-URL": "http://testserver/devices"}
    for (route, method), cells in EXPECTED.items():
        if method != "GET" or cells[column] not in ("200", "403", "404"):
            continue
        path = address(route, parameters(route, home, who.own))
        answer, _ = visit(who.client, "GET", path, {}, lambda: None, **fetched)
        if answer.refuses and cells[column] == "200" and route not in ROWS:
            yield f"/{route} is refused: {answer.status}"
        if not answer.refuses and cells[column] != "200":
            yield f"/{route} is not refused: {answer.status}"
        if route not in FOR_WHOEVER_HOLDS_IT:
            for mark in leaks(answer, who.other, path):
                yield f"/{route} shows {mark!r}"


# --- that the marks are there to be found ------------------------------------------------------------------

SHOWN = {
    "devices": "{word}-router",
    "devices/<str:node_id>": "the notes of {word}",
    "users": "victim@{word}.example",
    "users/invitations": "invited@{word}.example",
    "routes": "{prefix}",
    "keys": "{word} key",
    "keys?show=tokens": "{word} token",
    "keys?show=clients": "{word} client",
    "settings/webhooks": "https://{word}.example",
    "relays": "Relay {word}",
    "dns": "record.{word}.example",
    "logs": "{word}",
    "approvals": "{word}-waiting",
    "map/data": "{word}-router",
    "my-devices": "{word}-owner-own",
    "account": "{word}-owner passkey",
    "settings": "{word}-net",
    "settings/card/contacts": "contact@{word}.example",
}


def test_a_tailnets_own_owner_sees_its_marks(estates: tuple[Estate, Estate]) -> None:
    """Without this, an empty page would pass for one that keeps secrets."""
    home, away = estates
    who, missing = party(Role.OWNER.value, home, away), []
    for route, text in SHOWN.items():
        path = address(route, parameters(route, home, who.own))
        answer, _ = visit(who.client, "GET", path, {}, lambda: None)
        if not answer.shows(text.format(word=home.word, prefix=home.prefix).encode()):
            missing.append(f"/{route} does not show {text}")
    assert missing == []


# --- the panel's socket ------------------------------------------------------------------------------------

# Who opens the socket of their own tailnet's pages; None = it stays open.
SOCKET: dict[str, int | None] = {"anonymous": panel.SIGNED_OUT} | dict.fromkeys(VISITORS[1:])


@pytest.mark.django_db(transaction=True)
async def test_who_listens_at_the_socket() -> None:
    """To one's own tailnet, if anybody; to the other one nobody does."""
    home, away = await in_thread(_two)()
    for name in VISITORS:
        await try_the_socket(name, home, away)


async def try_the_socket(name: str, home: Estate, away: Estate) -> None:
    places = {role.value: home.places[role] for role in ROLES} | {"stranger": away.places[Role.OWNER]}
    user = places[name].user if name in places else None
    mine, other = (away.tailnet, home.tailnet) if name == "stranger" else (home.tailnet, away.tailnet)
    refused = await closing(await socket(f"/ws/panel/{other.pk}", user, mine))
    assert refused == (panel.SIGNED_OUT if user is None else panel.OTHER_TAILNET), name
    opened = await socket(f"/ws/panel/{mine.pk}", user, mine)
    if SOCKET[name] is not None:
        assert await closing(opened) == SOCKET[name], name
        return
    assert await opened.connect(), name
    assert set(await opened.receive_json()) == {"type", "version"}, name
    await opened.disconnect()


def _two() -> tuple[Estate, Estate]:
    return make_estate("zanahoria", 177), make_estate("berenjena", 188)
