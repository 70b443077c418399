"""What may stand in the API's paths and bodies: the objects of one estate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from django.utils import timezone

from accounts.models import Tailnet
from controlplane.services.flows import record_flows
from nodes.approvals import Kind, Ref
from nodes.services.posture import Wanted, set_attributes
from nodes.services.presence import claim_presence
from nodes.services.routes import set_enabled_routes
from tests.controlplane.estate import ME, Belongings, Estate, make_estate
from tests.nodes import factories as machines
from wire.flows import Flow, FlowReport

V2, OWN = "/api/v2", "/api/trenza/v1"
TIMES = "start=2020-01-01T00:00:00Z&end=2090-01-01T00:00:00Z"
ATTRIBUTE = "custom:tier"


def furnished(word: str, network: int) -> Estate:
    """An estate, and in it what only the API has: attributes, a flow log."""
    estate, now = make_estate(word, network), timezone.now()
    set_attributes(changes={estate.device: {ATTRIBUTE: Wanted(f"{word}_tier")}}, by=ME)
    for own in estate.own.values():
        set_attributes(changes={own.device: {ATTRIBUTE: Wanted(f"{word}_own")}}, by=ME)
    Tailnet.objects.filter(pk=estate.tailnet.pk).update(flow_logging=True)
    way = {"RoutableIPs": ["0.0.0.0/0", "::/0"], "Hostname": f"{word}-exit", "OS": "linux"}
    exit_node = machines.node(estate.tailnet, estate.owner, preapproved=True, hostinfo=way)
    set_enabled_routes(node=exit_node, prefixes=["0.0.0.0/0", "::/0"], by=ME)
    for node in (estate.device, estate.own[estate.owner.pk].device):
        claim_presence(tailnet=estate.tailnet.pk, node_id=node.pk, worker="w1")
    flow = Flow(proto=6, src=f"10.{network}.77.9:40000", dst="192.0.2.1:22", tx_packets=5, tx_bytes=500)
    report = FlowReport(start=now, end=now, subnet=(flow,))
    record_flows(tailnet_id=estate.tailnet.pk, node_id=estate.device.pk, report=report, now=now)
    return estate


def places(estate: Estate) -> dict[str, str]:
    """For each parameter of a path something that there is in the estate."""
    return {
        "tailnet": estate.tailnet.name,
        "organization": str(estate.owner.pk),
        "deviceId": estate.device.stable_id,
        "attributeKey": ATTRIBUTE,
        "keyId": estate.key.key.public_id,
        "userId": str(estate.victim.user_id),
        "inviteId": str(estate.invite.pk),
        "endpointId": estate.webhook.public_id,
        "kind": "security",
    }


def fitting(estate: Estate) -> dict[str, dict[str, str]]:
    """For operations that take only some of the things of their kind: which of them."""
    return {"setKey": {"keyId": estate.client.client.public_id}}


def others(estate: Estate) -> dict[str, list[str]]:
    """For each parameter further things that there are, by whichever name they have."""
    people = [str(one.user_id) for one in (*estate.places.values(), estate.applicant)]
    own = list(estate.own.values())
    secrets = [estate.token.token, estate.client.client, *keys_of(own)]
    return {
        "tailnet": ["-", str(estate.tailnet.pk)],
        "organization": ["-"],
        "deviceId": [
            str(estate.device.pk),
            estate.waiting.stable_id,
            *(one.device.stable_id for one in own),
        ],
        "attributeKey": ["custom:other", "node:os"],
        "keyId": [one.public_id for one in secrets],
        "userId": people,
        "inviteId": [],
        "endpointId": [],
        "kind": ["account", "support"],
    }


def keys_of(belongings: Iterable[Belongings]) -> list[Any]:
    """The rows of people's own keys and tokens."""
    return [row for one in belongings for row in (one.key.key, one.token.token)]


def filled(template: str, values: Mapping[str, str]) -> str:
    """A path of the description, with values in it."""
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", quote(value, safe=":@"))
    assert "{" not in template, f"nothing fills {template}"
    return template


def refs(estate: Estate) -> dict[Kind, str]:
    """What waits in the estate, as the queue of approvals names it."""
    rows = {
        Kind.DEVICE: estate.waiting,
        Kind.PERSON: estate.applicant,
        Kind.ROUTE: estate.route,
        Kind.EXIT_NODE: estate.device,
    }
    return {kind: str(Ref(kind, row.pk)) for kind, row in rows.items()}


def creating(*tags: str) -> dict[str, Any]:
    """What an auth key is asked for with."""
    return {"keyType": "auth", "capabilities": {"devices": {"create": {"tags": list(tags)}}}}


def bodies(estate: Estate) -> dict[str, Any]:
    """For each operation that takes a body one worth sending: where it names objects, the estate's."""
    client = {"keyType": "client", "scopes": ["oauth_keys:read"]}
    return {
        "setExitNode": {"exitNodeId": estate.waiting.stable_id},
        "approveItems": {"items": list(refs(estate).values())},
        "declineItems": {"items": list(refs(estate).values())},
        "setCustomDevicePostureAttributes": {"value": "gold"},
        "authorizeDevice": {"authorized": False},
        "setDeviceIp": {"ipv4": "100.99.98.97"},
        "updateDeviceKey": {"keyExpiryDisabled": True},
        "setDeviceName": {"name": "renamed"},
        "setDeviceRoutes": {"routes": [estate.prefix]},
        "setDeviceTags": {"tags": ["tag:web"]},
        "createAccessToken": {"client_secret": estate.client.text},
        "createOrganizationTailnet": {"displayName": "One more"},
        "updateContact": {"email": "contact@example.org"},
        "batchUpdateCustomDevicePostureAttributes": {
            "nodes": {estate.device.stable_id: {ATTRIBUTE: {"value": "gold"}}}
        },
        "setPolicyFile": {"acls": []},
        "validateAndTestPolicyFile": {"acls": []},
        "previewRuleMatches": {"acls": []},
        "setDnsConfiguration": {"searchPaths": ["corp.example.org"]},
        "setDnsNameservers": {"dns": ["9.9.9.10"]},
        "setDnsPreferences": {"magicDNS": False},
        "setDnsSearchPaths": {"searchPaths": ["corp.example.org"]},
        "setSplitDns": {"corp.example.org": ["9.9.9.10"]},
        "updateSplitDns": {"corp.example.org": ["9.9.9.10"]},
        "createKey": creating(),
        "setKey": client,
        "updateTailnetSettings": {"devicesApprovalOn": False},
        "createUserInvites": [{"email": "new@example.org", "role": "member"}],
        "createWebhook": {"endpointUrl": "https://example.org/", "subscriptions": ["nodeCreated"]},
        "updateUserRole": {"role": "auditor"},
        "setUserGroups": {"groups": ["group:engineering"]},
        "updateWebhook": {"subscriptions": ["nodeDeleted"]},
    }
