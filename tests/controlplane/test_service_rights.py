"""What changes the whole tailnet asks for the role itself, whoever calls it: a page, the API, a job."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

import accounts.services
import controlplane.services
import nodes.services
from accounts.actors import Actor
from accounts.errors import ApplicationError, Forbidden
from accounts.models import Contact, Tailnet
from accounts.roles import TABLE, Capability, Role
from accounts.tenancy import scope
from controlplane.services import ownrelays, webhooks
from controlplane.services.mails import Notice
from tests.accounts import factories

pytestmark = pytest.mark.django_db

# What takes a tailnet, or what is of the whole tailnet and has no `access` of its own.
SUBJECTS = {"tailnet", "webhook", "relay"}

# A new service of that kind fails here until it has its row: the right that it asks for, and a call.
ASKS: dict[str, tuple[Capability, dict[str, Any]]] = {
    "accounts.services.contacts.set_contact": (
        Capability.MANAGE_SETTINGS,
        {"kind": Contact.Kind.SUPPORT, "email": "ana@example.com"},
    ),
    "accounts.services.contacts.send_verification": (
        Capability.MANAGE_SETTINGS,
        {"kind": Contact.Kind.SUPPORT},
    ),
    "accounts.services.invites.create_invite": (Capability.MANAGE_USERS, {"email": "ana@example.com"}),
    "accounts.services.invites.create_invites": (
        Capability.MANAGE_USERS,
        {"wanted": [("ana@example.com", "member")]},
    ),
    "accounts.services.tailnets.update_settings": (Capability.MANAGE_SETTINGS, {"display_name": "Ours"}),
    "accounts.services.tailnets.rename_tailnet": (Capability.MANAGE_SETTINGS, {"name": "other"}),
    "accounts.services.tailnets.delete_tailnet": (Capability.OWN_TAILNET, {}),
    "accounts.services.tokens.create_api_token": (
        Capability.MANAGE_SETTINGS,
        {"user": None, "scopes": ["dns:read"]},
    ),
    "accounts.services.tokens.create_oauth_client": (Capability.MANAGE_SETTINGS, {"scopes": ["dns:read"]}),
    "nodes.services.authkeys.create_auth_key": (Capability.CREATE_TAGGED_KEYS, {"tags": ["tag:web"]}),
    "controlplane.services.dns.set_magic_dns": (Capability.MANAGE_NETWORK, {"on": False}),
    "controlplane.services.dns.set_override": (Capability.MANAGE_NETWORK, {"on": False}),
    "controlplane.services.dns.add_nameserver": (Capability.MANAGE_NETWORK, {"address": "9.9.9.9"}),
    "controlplane.services.dns.remove_nameserver": (Capability.MANAGE_NETWORK, {"address": "9.9.9.9"}),
    "controlplane.services.dns.add_search_domain": (Capability.MANAGE_NETWORK, {"domain": "example.com"}),
    "controlplane.services.dns.remove_search_domain": (Capability.MANAGE_NETWORK, {"domain": "example.com"}),
    "controlplane.services.dns.add_record": (Capability.MANAGE_NETWORK, {"name": "a.b", "value": "9.9.9.9"}),
    "controlplane.services.dns.remove_record": (
        Capability.MANAGE_NETWORK,
        {"name": "a.b", "value": "9.9.9.9"},
    ),
    "controlplane.services.dns.replace_nameservers": (Capability.MANAGE_NETWORK, {"addresses": ["9.9.9.9"]}),
    "controlplane.services.dns.replace_search_domains": (
        Capability.MANAGE_NETWORK,
        {"domains": ["example.com"]},
    ),
    "controlplane.services.dns.replace_split_dns": (
        Capability.MANAGE_NETWORK,
        {"domains": {"example.com": ["9.9.9.9"]}},
    ),
    "controlplane.services.dns.replace_dns": (
        Capability.MANAGE_NETWORK,
        {
            "magic_dns": True,
            "override_local_dns": False,
            "nameservers": [],
            "split_dns": {},
            "search_domains": [],
        },
    ),
    "controlplane.services.mails.switch_notice": (
        Capability.MANAGE_SETTINGS,
        {"notice": Notice.KEYS, "on": False},
    ),
    "controlplane.services.ownrelays.add_relay": (
        Capability.MANAGE_RELAYS,
        {"name": "Second", "host": "192.0.2.2", "derp_port": 443},
    ),
    "controlplane.services.ownrelays.rename_relay": (Capability.MANAGE_RELAYS, {"name": "Renamed"}),
    "controlplane.services.ownrelays.set_relay_enabled": (Capability.MANAGE_RELAYS, {"enabled": False}),
    "controlplane.services.ownrelays.renew_relay_token": (Capability.MANAGE_RELAYS, {}),
    "controlplane.services.ownrelays.remove_relay": (Capability.MANAGE_RELAYS, {}),
    "controlplane.services.policy.save_policy": (Capability.MANAGE_NETWORK, {"text": '{"acls": []}'}),
    "controlplane.services.policy.restore_policy": (Capability.MANAGE_NETWORK, {"number": 1}),
    "controlplane.services.renaming.rename_tailnet": (Capability.MANAGE_SETTINGS, {"name": "other"}),
    "controlplane.services.webhooks.create_webhook": (
        Capability.MANAGE_SETTINGS,
        {"url": "https://example.com/", "subscriptions": ["nodeCreated"]},
    ),
    "controlplane.services.webhooks.update_webhook": (Capability.MANAGE_SETTINGS, {"enabled": False}),
    "controlplane.services.webhooks.rotate_webhook": (Capability.MANAGE_SETTINGS, {}),
    "controlplane.services.webhooks.try_webhook": (Capability.MANAGE_SETTINGS, {}),
    "controlplane.services.webhooks.send_again": (Capability.MANAGE_SETTINGS, {"delivery_id": 0}),
    "controlplane.services.webhooks.delete_webhook": (Capability.MANAGE_SETTINGS, {}),
}
ASKS_NOT = {
    "accounts.services.audit.record": "writes down what a service has done",
    "accounts.services.people.add_member": "the way in: welcome, accepted invitations, commands",
    "accounts.services.signinlink.create_link": "the operator's, by a command",
    "nodes.services.approvals.decide": "its subjects come from access, by NEEDS",
    "nodes.services.enrolment.register_node": "a device comes in by a key or a confirmed login",
    "nodes.services.lifecycle.delete_nodes_of": "part of removing a person, who comes from access",
}


def services() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function of the apps' services that somebody has done (``by``)."""
    packages: tuple[ModuleType, ...] = (accounts.services, nodes.services, controlplane.services)
    for package in packages:
        for found in pkgutil.iter_modules(package.__path__):
            module = import_module(f"{package.__name__}.{found.name}")
            for name, function in inspect.getmembers(module, inspect.isfunction):
                own = function.__module__ == module.__name__ and not name.startswith("_")
                if own and "by" in inspect.signature(function).parameters:
                    yield f"{module.__name__}.{name}", function


def test_each_service_that_changes_the_whole_tailnet_has_its_row() -> None:
    found = {name for name, function in services() if SUBJECTS & set(inspect.signature(function).parameters)}
    assert found == set(ASKS) | set(ASKS_NOT)


@pytest.fixture
def tailnet() -> Tailnet:
    return factories.tailnet("ours")[0]


def subjects(tailnet: Tailnet) -> dict[str, Any]:
    me = Actor.command()
    hook, _secret = webhooks.create_webhook(
        tailnet=tailnet, url="https://example.com/hook", subscriptions=["nodeCreated"], by=me
    )
    relay = ownrelays.add_relay(tailnet=tailnet, by=me, name="First", host="192.0.2.1", derp_port=443).relay
    return {"tailnet": tailnet, "webhook": hook, "relay": relay}


@pytest.mark.parametrize("name", ASKS)
def test_it_refuses_every_role_without_the_right_and_no_other(name: str, tailnet: Tailnet) -> None:
    needed, values = ASKS[name]
    service = dict(services())[name]
    wanted = set(inspect.signature(service).parameters)
    values = {key: value for key, value in subjects(tailnet).items() if key in wanted} | values
    people = {role: factories.member(tailnet, role).user for role in Role if role is not Role.OWNER}
    stranger = factories.person()
    with scope(tailnet=tailnet):
        for user in [stranger, *(user for role, user in people.items() if needed not in TABLE[role])]:
            with pytest.raises(Forbidden):
                service(**values, by=Actor.person(user))
        for role, user in people.items():
            if needed in TABLE[role]:
                try:
                    service(**values, by=Actor.person(user))
                except Forbidden:
                    pytest.fail(f"{role} may do this")
                except ApplicationError:
                    return  # it asks, and what it asks for is not there, or is done already
                return
