"""What the server under the clients' tests holds: made and read beside it, by its own code.

It runs in the process of :class:`tests.commands.Operator`, where Django knows the server's data: see
:meth:`tests.controlplane.clients.live.Harbour.ask`.
"""

from __future__ import annotations

import json
from typing import Any

from django.apps import apps
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import BinaryField

from accounts.actors import Actor
from accounts.models import Tailnet, User
from accounts.roles import Role
from accounts.services.people import add_member, create_person
from accounts.services.tailnets import create_tailnet, update_settings
from accounts.services.tokens import create_api_token, create_oauth_client
from accounts.tenancy import scope
from controlplane.notices.seal import unseal
from nodes.services.authkeys import create_auth_key

NAME = "harbour"
ME = Actor.command()
PEOPLE = {
    "ben": (Role.ADMIN, False),
    "cho": (Role.MEMBER, False),
    "dee": (Role.NETWORK_ADMIN, False),
    "eve": (Role.MEMBER, True),
    "fay": (Role.MEMBER, False),
}


def tell(function: str, arguments: str) -> None:
    """Call a function of this module by its name, with arguments in JSON, and print what it returns."""
    print(json.dumps(globals()[function](**json.loads(arguments)), cls=DjangoJSONEncoder))


def make() -> dict[str, Any]:
    """The tailnet, its people and what signs programs in: their ids and secrets."""
    owner = create_person(email=f"ana@{NAME}.example", display_name="Ana Costa")
    tailnet, _ = create_tailnet(name=NAME, owner=owner, by=ME, display_name="Harbour Company")
    update_settings(tailnet=tailnet, by=ME, key_duration_days=90, flow_logging=True)
    people = {"ana": owner.pk}
    for name, (role, waits) in PEOPLE.items():
        person = create_person(email=f"{name}@{NAME}.example")
        add_member(tailnet=tailnet, user=person, role=role, by=ME, needs_approval=waits)
        people[name] = person.pk
    token = create_api_token(tailnet=tailnet, user=owner, by=ME, description="scripts")
    reader = create_api_token(tailnet=tailnet, user=owner, by=ME, scopes=["dns:read"])
    client = create_oauth_client(
        tailnet=tailnet, by=ME, scopes=["devices:core", "auth_keys"], tags=["tag:web"], description="builds"
    )
    terms: dict[str, Any] = {"reusable": True, "preauthorized": True}
    return {
        "people": people,
        "token": token.text,
        "token_id": token.token.public_id,
        "reader": reader.text,
        "client_id": client.client.public_id,
        "client_secret": client.text,
        "own_key": create_auth_key(tailnet=tailnet, by=ME, user=owner, **terms).text,
        "tagged_key": create_auth_key(tailnet=tailnet, by=ME, tags=["tag:db"], **terms).text,
        "waiting_key": create_auth_key(tailnet=tailnet, by=ME, user=owner, ephemeral=True).text,
    }


def rows(model: str, **filters: Any) -> list[dict[str, Any]]:
    """Rows of the tailnet, oldest first, by their columns, less those of bytes."""
    kind = apps.get_model(model)
    columns = [field.attname for field in kind._meta.concrete_fields if not isinstance(field, BinaryField)]
    with scope(tailnet=Tailnet.objects.get(name=NAME)):
        return list(kind.objects.filter(**filters).order_by("pk").values(*columns))


def tailnets() -> list[Any]:
    """All tailnets of the server, by their columns."""
    return list(Tailnet.objects.order_by("pk").values())


def brief_tailnet() -> dict[str, Any]:
    """Another tailnet of the owner's, to be deleted: its id, and a token of it."""
    owner = User.objects.get(email=f"ana@{NAME}.example")
    tailnet, _ = create_tailnet(name="brief", owner=owner, by=ME)
    return {"id": tailnet.pk, "token": create_api_token(tailnet=tailnet, user=owner, by=ME).text}


def secret_of(endpoint_id: str) -> str | None:
    """What a webhook's deliveries are signed with."""
    with scope(tailnet=Tailnet.objects.get(name=NAME)):
        return unseal(apps.get_model("controlplane.Webhook").objects.get(public_id=endpoint_id).sealed_secret)
