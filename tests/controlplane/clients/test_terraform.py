"""What Tailscale's Terraform provider asks for each resource and data source, and needs of the answers.

Read from the provider's resources (terraform-provider-tailscale) and the requests of the Go client that it is
built on. Bodies are as Go's encoder writes them: every member that is not ``omitempty``, ``null`` for a list
that there is none of. A resource is created, read (each plan begins so), updated, imported (which is to read
by an id alone) and deleted. What a plan says and the next read does not is a change that never ends.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from string import Template
from typing import Any

import pytest
from django.conf import settings

from accounts.models import Tailnet, User
from accounts.services.tokens import create_api_token
from nodes.models import Node
from tests.accounts import factories as people
from tests.api import Api
from tests.controlplane.estate import ME
from tests.nodes import factories as machines
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
ABSENT = object()
Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Step:
    """One request; ``$device``, ``$user`` and ``$id`` stand for ids.

    ``accepts``: the media type that it asks for, where that is not JSON; the answer is then a text.
    ``tells`` is what the provider needs of the answer: members, in which a set is a list in any order and a
    function a condition. ``keeps`` names the member that is the resource's id from then on.
    """

    does: str
    method: str
    path: str
    body: str = ""
    tells: Any = None
    status: int = 200
    keeps: str = ""
    accepts: str = ""
    if_match: str = ""


class Provider(Api):
    """Calls as the provider makes them: the token as Basic's user, JSON asked for where none is sent."""

    def __init__(self, token: str) -> None:
        super().__init__(None)
        self.basic = "Basic " + base64.b64encode(f"{token}:".encode()).decode()

    def take(self, step: Step, ids: dict[str, str]) -> Any:
        """The answer, which has the status that the step says and is what the provider can use."""
        path, body = (Template(text).substitute(ids) for text in (step.path, step.body))
        headers = {"authorization": self.basic, "user-agent": "terraform-provider-tailscale"}
        if not body and step.method != "POST":
            headers["accept"] = step.accepts or "application/json"
        if step.if_match:
            headers["if-match"] = f'"{step.if_match}"'
        what = (step.method, path, body.encode() or None)
        if step.accepts:
            answer = self._client.get(f"{self.prefix}{path}", headers=headers)
            assert (answer.status_code, answer["Content-Type"]) == (step.status, step.accepts), step
            return answer.content.decode()
        if step.status != 200:
            refused = self.refusal(*what, headers=headers)
            assert (refused.status, bool(refused.message)) == (step.status, True), (step, refused)
            return None
        value = self.call(*what, headers=headers)
        assert self.status == 200, step
        return value


def lacks(value: Any, wanted: Any, ids: dict[str, str], where: str = "") -> Iterator[str]:
    """What an answer has not, or not as it is wanted."""
    if isinstance(wanted, dict) and isinstance(value, dict):
        for name, one in wanted.items():
            yield from lacks(value.get(name, ABSENT), one, ids, f"{where}.{name}")
    elif isinstance(wanted, list) and isinstance(value, list) and len(wanted) == len(value):
        for number, (has, one) in enumerate(zip(value, wanted, strict=True)):
            yield from lacks(has, one, ids, f"{where}[{number}]")
    elif not _is(value, wanted, ids):
        yield f"{where} is {'absent' if value is ABSENT else repr(value)}"


def _is(value: Any, wanted: Any, ids: dict[str, str]) -> bool:
    if isinstance(wanted, set):
        return isinstance(value, list) and len(value) == len(wanted) and set(value) == wanted
    if isinstance(wanted, type):
        return type(value) is wanted
    if callable(wanted):
        return value is not ABSENT and bool(wanted(value))
    if isinstance(wanted, str):
        return bool(value == Template(wanted).safe_substitute(ids))
    return type(value) is type(wanted) and bool(value == wanted)


def moment(value: Any) -> bool:
    """A time that Go reads (RFC 3339); an empty text is none."""
    return isinstance(value, str) and value.endswith("Z") and datetime.fromisoformat(value).year > 2000


def begins(prefix: str) -> Check:
    return lambda value: isinstance(value, str) and value.startswith(prefix)


def each(**members: Any) -> Check:
    """Of a list: at least one, and each with these members."""
    return lambda value: bool(value) and not any(any(lacks(one, members, {})) for one in value)


def known(value: Any) -> bool:
    return isinstance(value, str) and value != ""


# --- DNS ---------------------------------------------------------------------------------------------------

DNS = "/tailnet/-/dns"
NAMESERVERS, PREFERENCES, SEARCH = f"{DNS}/nameservers", f"{DNS}/preferences", f"{DNS}/searchpaths"
SPLIT, CONFIGURATION = f"{DNS}/split-dns", f"{DNS}/configuration"

dns_nameservers = [
    Step("create", "POST", NAMESERVERS, '{"dns":["8.8.8.8","1.1.1.1","9.9.9.9"]}'),
    Step("read", "GET", NAMESERVERS, tells={"dns": ["8.8.8.8", "1.1.1.1", "9.9.9.9"]}),
    Step("update", "POST", NAMESERVERS, '{"dns":["1.1.1.1"]}'),
    Step("read", "GET", NAMESERVERS, tells={"dns": ["1.1.1.1"]}),
    Step("update to null", "POST", NAMESERVERS, '{"dns":null}'),
    Step("import", "GET", NAMESERVERS, tells={"dns": []}),
    Step("delete", "POST", NAMESERVERS, '{"dns":[]}'),
    Step("is gone", "GET", NAMESERVERS, tells={"dns": []}),
]
dns_preferences = [
    Step("create", "POST", PREFERENCES, '{"magicDNS":true}'),
    Step("read", "GET", PREFERENCES, tells={"magicDNS": True}),
    Step("update", "POST", PREFERENCES, '{"magicDNS":false}'),
    Step("read", "GET", PREFERENCES, tells={"magicDNS": False}),
    Step("import", "GET", PREFERENCES, tells={"magicDNS": False}),
    Step("delete", "POST", PREFERENCES, '{"magicDNS":false}'),
]
dns_search_paths = [
    Step("create", "POST", SEARCH, '{"searchPaths":["sub1.example.com","a.example.com"]}'),
    Step("read", "GET", SEARCH, tells={"searchPaths": ["sub1.example.com", "a.example.com"]}),
    Step("update", "POST", SEARCH, '{"searchPaths":["b.example.com"]}'),
    Step("read", "GET", SEARCH, tells={"searchPaths": ["b.example.com"]}),
    Step("update to null", "POST", SEARCH, '{"searchPaths":null}'),
    Step("import", "GET", SEARCH, tells={"searchPaths": []}),
    Step("delete", "POST", SEARCH, '{"searchPaths":[]}'),
    Step("is gone", "GET", SEARCH, tells={"searchPaths": []}),
]
dns_split_nameservers = [
    Step("another's", "PATCH", SPLIT, '{"other.example.com":["9.9.9.9"]}'),
    Step("create", "PATCH", SPLIT, '{"example.com":["1.1.1.1","1.1.1.2"]}'),
    Step("read", "GET", SPLIT, tells={"example.com": {"1.1.1.1", "1.1.1.2"}}),
    Step("update", "PATCH", SPLIT, '{"example.com":["1.1.1.3"]}', tells={"example.com": {"1.1.1.3"}}),
    Step("import", "GET", SPLIT, tells={"example.com": {"1.1.1.3"}}),
    Step("update to null", "PATCH", SPLIT, '{"example.com":null}'),
    Step("create again", "PATCH", SPLIT, '{"example.com":["1.1.1.1"]}'),
    Step("delete", "PATCH", SPLIT, '{"example.com":[]}'),
    Step("is gone", "GET", SPLIT, tells={"example.com": ABSENT, "other.example.com": {"9.9.9.9"}}),
]
dns_configuration = [
    Step(
        "create",
        "POST",
        CONFIGURATION,
        '{"nameservers":[{"address":"8.8.8.8"},{"address":"1.1.1.1","useWithExitNode":true}],'
        '"splitDNS":{"bar.example.com":[{"address":"8.8.8.2","useWithExitNode":true}],'
        '"foo.example.com":[{"address":"1.1.1.2","useWithExitNode":true},{"address":"1.1.1.3"}]},'
        '"searchPaths":["example.com","anotherexample.com"],'
        '"preferences":{"overrideLocalDNS":true,"magicDNS":true}}',
    ),
    Step(
        "read",
        "GET",
        CONFIGURATION,
        tells={
            "nameservers": [
                {"address": "8.8.8.8", "useWithExitNode": False},
                {"address": "1.1.1.1", "useWithExitNode": True},
            ],
            "splitDNS": {
                "bar.example.com": [{"address": "8.8.8.2", "useWithExitNode": True}],
                "foo.example.com": [
                    {"address": "1.1.1.2", "useWithExitNode": True},
                    {"address": "1.1.1.3", "useWithExitNode": False},
                ],
            },
            "searchPaths": ["example.com", "anotherexample.com"],
            "preferences": {"overrideLocalDNS": True, "magicDNS": True},
        },
    ),
    Step(
        "update",
        "POST",
        CONFIGURATION,
        '{"nameservers":[{"address":"8.8.8.8","useWithExitNode":true}],'
        '"splitDNS":{"bar.example.com":[{"address":"8.8.8.2"}]},'
        '"searchPaths":["anotherexample.com"],"preferences":{}}',
    ),
    Step(
        "import",
        "GET",
        CONFIGURATION,
        tells={
            "nameservers": [{"address": "8.8.8.8", "useWithExitNode": True}],
            "splitDNS": {
                "bar.example.com": [{"address": "8.8.8.2", "useWithExitNode": False}],
                "foo.example.com": ABSENT,
            },
            "searchPaths": ["anotherexample.com"],
            "preferences": {"overrideLocalDNS": False, "magicDNS": False},
        },
    ),
    Step("update to nothing", "POST", CONFIGURATION, '{"preferences":{"magicDNS":true}}'),
    Step(
        "read",
        "GET",
        CONFIGURATION,
        tells={
            "nameservers": [],
            "splitDNS": lambda value: value == {},
            "searchPaths": [],
            "preferences": {"magicDNS": True, "overrideLocalDNS": False},
        },
    ),
    Step(
        "a domain of no server", "POST", CONFIGURATION, '{"splitDNS":{"x.example.com":null},"preferences":{}}'
    ),
    Step("delete", "POST", CONFIGURATION, '{"preferences":{}}'),
    Step("is gone", "GET", CONFIGURATION, tells={"preferences": {"magicDNS": False}, "nameservers": []}),
]

# --- the policy --------------------------------------------------------------------------------------------

ACL, HUJSON = "/tailnet/-/acl", "application/hujson"
FIRST = '{\n  // ours\n  "acls": [{"action": "accept", "src": ["*"], "dst": ["*:22"]}],\n}\n'
SECOND = FIRST.replace("22", "443")
BROKEN = FIRST.replace('"*:22"', '"tag:none:22"')

acl = [
    Step("plan", "POST", f"{ACL}/validate", FIRST, tells=lambda told: told == {}),
    Step("plan what is wrong", "POST", f"{ACL}/validate", BROKEN, tells={"message": known}),
    Step("create", "POST", ACL, FIRST, if_match="ts-default"),
    Step("read", "GET", ACL, accepts=HUJSON, tells=lambda text: text == FIRST),
    Step("create where there is one", "POST", ACL, SECOND, if_match="ts-default", status=412),
    Step("create all the same", "POST", ACL, SECOND),
    Step("import", "GET", ACL, accepts=HUJSON, tells=lambda text: text == SECOND),
    Step("update", "POST", ACL, FIRST),
    Step("update to what is wrong", "POST", ACL, BROKEN, status=400),
    Step("read", "GET", ACL, accepts=HUJSON, tells=lambda text: text == FIRST),
    Step("data", "GET", ACL, tells={"acls": each(action="accept")}),
    Step("delete, and reset", "POST", ACL),
    Step("create anew", "POST", ACL, SECOND, if_match="ts-default"),
]

# --- devices -----------------------------------------------------------------------------------------------

DEVICE = "/device/$device"
GONE = [
    Step("somebody removes it", "DELETE", DEVICE),
    Step("read, and make it anew", "GET", DEVICE, status=404),
]
IDS = {"id": "$number", "nodeId": "$name"}

device_authorization = [
    Step("read before", "GET", DEVICE, tells={"authorized": False} | IDS),
    Step("create", "POST", f"{DEVICE}/authorized", '{"authorized":true}'),
    Step("read", "GET", DEVICE, tells={"authorized": True} | IDS),
    Step("update", "POST", f"{DEVICE}/authorized", '{"authorized":false}'),
    Step("import", "GET", DEVICE, tells={"authorized": False} | IDS),
    *GONE,
    Step("update", "POST", f"{DEVICE}/authorized", '{"authorized":true}', status=404),
]
device_key = [
    Step("create", "POST", f"{DEVICE}/key", '{"keyExpiryDisabled":true}'),
    Step("read", "GET", DEVICE, tells={"keyExpiryDisabled": True} | IDS),
    Step("update", "POST", f"{DEVICE}/key", '{"keyExpiryDisabled":false}'),
    Step("import", "GET", DEVICE, tells={"keyExpiryDisabled": False} | IDS),
    Step("update", "POST", f"{DEVICE}/key", '{"keyExpiryDisabled":true}'),
    Step("delete", "POST", f"{DEVICE}/key", '{"keyExpiryDisabled":false}'),
    Step("is gone", "GET", DEVICE, tells={"keyExpiryDisabled": False}),
    *GONE,
]
device_tags = [
    Step("read before", "GET", DEVICE, tells={"tags": ABSENT} | IDS),
    Step("create", "POST", f"{DEVICE}/tags", '{"tags":["tag:server","tag:prod"]}'),
    Step("read", "GET", DEVICE, tells={"tags": {"tag:prod", "tag:server"}} | IDS),
    Step("update", "POST", f"{DEVICE}/tags", '{"tags":["tag:server"]}'),
    Step("import", "GET", DEVICE, tells={"tags": {"tag:server"}} | IDS),
    Step("delete, which nobody can", "POST", f"{DEVICE}/tags", '{"tags":[]}', status=409),
    *GONE,
]
device_subnet_routes = [
    Step("create", "POST", f"{DEVICE}/routes", '{"routes":["10.0.1.0/24","1.2.0.0/16","2.0.0.0/24"]}'),
    Step(
        "read",
        "GET",
        f"{DEVICE}/routes",
        tells={"advertisedRoutes": [], "enabledRoutes": {"10.0.1.0/24", "1.2.0.0/16", "2.0.0.0/24"}},
    ),
    Step("exit node", "POST", f"{DEVICE}/routes", '{"routes":["0.0.0.0/0","::/0"]}'),
    Step("import", "GET", f"{DEVICE}/routes", tells={"enabledRoutes": {"0.0.0.0/0", "::/0"}}),
    Step("delete", "POST", f"{DEVICE}/routes", '{"routes":[]}'),
    Step("is gone", "GET", f"{DEVICE}/routes", tells={"enabledRoutes": []}),
    Step("somebody removes it", "DELETE", DEVICE),
    Step("read, and make it anew", "GET", f"{DEVICE}/routes", status=404),
]

# --- keys --------------------------------------------------------------------------------------------------

KEYS, KEY = "/tailnet/-/keys", "/tailnet/-/keys/$id"
CREATED = {"id": known, "created": moment, "expires": moment, "userId": "$user", "invalid": False}

tailnet_key = [
    Step(
        "create",
        "POST",
        KEYS,
        '{"capabilities":{"devices":{"create":{"reusable":true,"ephemeral":true,"tags":["tag:server"],'
        '"preauthorized":true}}},"expirySeconds":3600,"description":"Example key"}',
        tells=CREATED | {"key": begins("tskey-auth-"), "expirySeconds": 3600},
        keeps="id",
    ),
    Step(
        "read",
        "GET",
        KEY,
        tells=CREATED
        | {
            "id": "$id",
            "keyType": "auth",
            "key": ABSENT,
            "description": "Example key",
            "expirySeconds": 3600,
            "capabilities": {
                "devices": {
                    "create": {
                        "reusable": True,
                        "ephemeral": True,
                        "preauthorized": True,
                        "tags": {"tag:server"},
                    }
                }
            },
        },
    ),
    Step("update, which reads", "GET", KEY, tells={"keyType": "auth", "invalid": False}),
    Step("import", "GET", KEY, tells={"keyType": "auth", "created": moment, "expires": moment}),
    Step("delete", "DELETE", KEY),
    Step("read, and make it anew", "GET", KEY, tells={"keyType": "auth", "invalid": True, "revoked": moment}),
    Step(
        "create with nothing said",
        "POST",
        KEYS,
        '{"capabilities":{"devices":{"create":{"reusable":false,"ephemeral":false,"tags":[],'
        '"preauthorized":false}}},"expirySeconds":0,"description":""}',
        tells=CREATED | {"expirySeconds": 7776000},
        keeps="id",
    ),
    Step(
        "read", "GET", KEY, tells={"capabilities": {"devices": {"create": {"tags": [], "reusable": False}}}}
    ),
    Step(
        "create with no list",
        "POST",
        KEYS,
        '{"capabilities":{"devices":{"create":{"reusable":false,"ephemeral":false,"tags":null,'
        '"preauthorized":false}}},"expirySeconds":0,"description":""}',
        tells=CREATED,
    ),
    Step("read what never was", "GET", f"{KEYS}/kNobodyCNTRL", status=404),
    Step("delete what never was", "DELETE", f"{KEYS}/kNobodyCNTRL", status=404),
]
oauth_client = [
    Step(
        "create",
        "POST",
        KEYS,
        '{"keyType":"client","scopes":["auth_keys","devices:core"],"tags":["tag:test"],'
        '"description":"A test client"}',
        tells={
            "id": known,
            "key": begins("tskey-client-"),
            "created": moment,
            "updated": moment,
            "userId": "$user",
        },
        keeps="id",
    ),
    Step(
        "read",
        "GET",
        KEY,
        tells={
            "id": "$id",
            "keyType": "client",
            "description": "A test client",
            "scopes": {"auth_keys", "devices:core"},
            "tags": {"tag:test"},
            "created": moment,
            "updated": moment,
            "userId": "$user",
        },
    ),
    Step(
        "update",
        "PUT",
        KEY,
        '{"keyType":"client","scopes":["users:read"],"tags":[],"description":""}',
        tells={"updated": moment},
    ),
    Step("import", "GET", KEY, tells={"description": "", "scopes": {"users:read"}, "tags": []}),
    Step(
        "update with no list",
        "PUT",
        KEY,
        '{"keyType":"client","scopes":["all:read"],"tags":null,"description":"x"}',
        tells={"updated": moment},
    ),
    Step("delete", "DELETE", KEY),
    Step("read, and make it anew", "GET", KEY, status=404),
    Step("delete what is gone", "DELETE", KEY, status=404),
]

# --- the tailnet -------------------------------------------------------------------------------------------

WEBHOOKS, WEBHOOK = "/tailnet/-/webhooks", "/webhooks/$id"
SUBSCRIPTIONS = [
    "categoryTailnetManagement",
    "nodeCreated",
    "nodeNeedsApproval",
    "nodeApproved",
    "nodeKeyExpiringInOneDay",
    "nodeKeyExpired",
    "nodeDeleted",
    "policyUpdate",
    "userCreated",
    "userNeedsApproval",
    "userSuspended",
    "userRestored",
    "userDeleted",
    "userApproved",
    "userRoleUpdated",
    "categoryDeviceMisconfigurations",
    "subnetIPForwardingNotEnabled",
    "exitNodeIPForwardingNotEnabled",
]
webhook = [
    Step(
        "create",
        "POST",
        WEBHOOKS,
        '{"endpointUrl":"https://example.com/endpoint","providerType":"","subscriptions":["userCreated"]}',
        tells={"endpointId": known, "secret": begins("tskey-webhook-")},
        keeps="endpointId",
    ),
    Step(
        "read",
        "GET",
        WEBHOOK,
        tells={
            "endpointUrl": "https://example.com/endpoint",
            "providerType": "",
            "subscriptions": {"userCreated"},
            "created": moment,
            "lastModified": moment,
            "secret": ABSENT,
        },
    ),
    Step("update", "PATCH", WEBHOOK, json.dumps({"subscriptions": SUBSCRIPTIONS})),
    Step("import", "GET", WEBHOOK, tells={"subscriptions": set(SUBSCRIPTIONS)}),
    Step("delete", "DELETE", WEBHOOK),
    Step("is gone", "GET", WEBHOOK, status=404),
    *(
        step
        for kind in ("slack", "mattermost", "googlechat", "discord")
        for step in (
            Step(
                f"create for {kind}",
                "POST",
                WEBHOOKS,
                f'{{"endpointUrl":"https://example.com/{kind}","providerType":"{kind}",'
                '"subscriptions":["nodeCreated"]}',
                tells={"secret": known},
                keeps="endpointId",
            ),
            Step("read", "GET", WEBHOOK, tells={"providerType": kind}),
        )
    ),
]

SETTINGS = "/tailnet/-/settings"
NOTHING = '"aclsExternallyManagedOn":null,"aclsExternalLink":null'  # not omitempty
tailnet_settings = [
    Step(
        "create",
        "PATCH",
        SETTINGS,
        '{"aclsExternallyManagedOn":false,"aclsExternalLink":"","devicesApprovalOn":true,'
        '"devicesAutoUpdatesOn":false,"devicesKeyDurationDays":5,"usersApprovalOn":true,'
        '"usersRoleAllowedToJoinExternalTailnets":"none","networkFlowLoggingOn":true,"regionalRoutingOn":false,'
        '"postureIdentityCollectionOn":false,"httpsEnabled":false}',
    ),
    Step(
        "read",
        "GET",
        SETTINGS,
        tells={
            "aclsExternallyManagedOn": False,
            "aclsExternalLink": "",
            "devicesApprovalOn": True,
            "devicesAutoUpdatesOn": False,
            "devicesKeyDurationDays": 5,
            "usersApprovalOn": True,
            "usersRoleAllowedToJoinExternalTailnets": "none",
            "networkFlowLoggingOn": True,
            "regionalRoutingOn": False,
            "postureIdentityCollectionOn": False,
            "httpsEnabled": False,
        },
    ),
    Step("update", "PATCH", SETTINGS, f'{{{NOTHING},"devicesKeyDurationDays":10,"usersApprovalOn":false}}'),
    Step(
        "read after it",
        "GET",
        SETTINGS,
        tells={"devicesKeyDurationDays": 10, "usersApprovalOn": False, "devicesApprovalOn": True},
    ),
    Step("update nothing", "PATCH", SETTINGS, f"{{{NOTHING}}}"),
    Step("import", "GET", SETTINGS, tells={"devicesKeyDurationDays": 10, "networkFlowLoggingOn": True}),
    Step("what is fixed here", "PATCH", SETTINGS, f'{{{NOTHING},"httpsEnabled":true}}', status=409),
]

CONTACTS = "/tailnet/-/contacts"
KINDS = ("account", "support", "security")


def set_contacts(does: str, name: str) -> list[Step]:
    """Each contact is sent twice."""
    return [
        Step(f"{does} {kind}", "PATCH", f"{CONTACTS}/{kind}", f'{{"email":"{name}-{kind}@example.com"}}')
        for kind in KINDS
        for _ in range(2)
    ]


def contacts_are(name: str) -> dict[str, Any]:
    return {kind: {"email": f"{name}-{kind}@example.com"} for kind in KINDS}


contacts = [
    *set_contacts("create", "one"),
    Step("read", "GET", CONTACTS, tells=contacts_are("one")),
    *set_contacts("update", "two"),
    Step("import", "GET", CONTACTS, tells=contacts_are("two")),
]

# --- data sources ------------------------------------------------------------------------------------------

DEVICES, USERS = "/tailnet/-/devices", "/tailnet/-/users"
SHOWN = {
    "name": known,
    "hostname": "box",
    "addresses": lambda value: len(value) == 2,
    "authorized": False,
    "blocksIncomingConnections": False,
    "clientVersion": str,
    "created": moment,
    "expires": moment,
    "isExternal": False,
    "keyExpiryDisabled": False,
    "lastSeen": moment,
    "machineKey": begins("mkey:"),
    "nodeKey": begins("nodekey:"),
    "os": "linux",
    "tailnetLockError": "",
    "tailnetLockKey": "",
    "updateAvailable": False,
    "user": known,
    "tags": ABSENT,
} | IDS
data_device = [
    Step("by host name", "GET", f"{DEVICES}?hostname=box", tells={"devices": [SHOWN]}),
    Step("by name", "GET", f"{DEVICES}?name=$fqdn", tells={"devices": [SHOWN]}),
    Step("that is not there yet", "GET", f"{DEVICES}?hostname=nobody", tells={"devices": []}),
]
data_devices = [
    Step("all", "GET", DEVICES, tells={"devices": lambda value: len(value) == 3}),
    Step(
        "filtered",
        "GET",
        f"{DEVICES}?isEphemeral=false&tags=tag%3Aprod&tags=tag%3Aserver",
        tells={"devices": [{"hostname": "web"}]},
    ),
    Step("of a system", "GET", f"{DEVICES}?os=linux", tells={"devices": each(os="linux")}),
    Step("by what is not", "GET", f"{DEVICES}?colour=red", status=400),
]
PERSON = {
    "displayName": known,
    "loginName": known,
    "profilePicUrl": "",
    "tailnetId": known,
    "created": moment,
    "type": "member",
    "status": "active",
    "deviceCount": int,
    "currentlyConnected": False,
}
data_user = [
    Step("by id", "GET", "/users/$user", tells=PERSON | {"id": "$user", "role": "owner"}),
    Step("by login, which lists", "GET", USERS, tells={"users": each(id=known, **PERSON)}),
    Step("that is not there", "GET", "/users/999999", status=404),
]
data_users = [
    Step("all", "GET", USERS, tells={"users": lambda value: len(value) == 2}),
    Step("with a role", "GET", f"{USERS}?role=owner&type=member", tells={"users": [{"id": "$user"}]}),
    Step("shared", "GET", f"{USERS}?type=shared", tells={"users": []}),
    *(
        Step(f"as {role}", "GET", f"{USERS}?role={role}", tells={"users": []})
        for role in ("admin", "it-admin", "network-admin", "billing-admin", "auditor")
    ),
]

SEQUENCES: dict[str, Sequence[Step]] = {
    "tailscale_dns_nameservers": dns_nameservers,
    "tailscale_dns_preferences": dns_preferences,
    "tailscale_dns_search_paths": dns_search_paths,
    "tailscale_dns_split_nameservers": dns_split_nameservers,
    "tailscale_dns_configuration": dns_configuration,
    "tailscale_acl": acl,
    "tailscale_device_authorization": device_authorization,
    "tailscale_device_key": device_key,
    "tailscale_device_tags": device_tags,
    "tailscale_device_subnet_routes": device_subnet_routes,
    "tailscale_tailnet_key": tailnet_key,
    "tailscale_oauth_client": oauth_client,
    "tailscale_webhook": webhook,
    "tailscale_tailnet_settings": tailnet_settings,
    "tailscale_contacts": contacts,
    "data.tailscale_device": data_device,
    "data.tailscale_devices": data_devices,
    "data.tailscale_user": data_user,
    "data.tailscale_users": data_users,
}
OF_A_DEVICE = [name for name, steps in SEQUENCES.items() if any("$device" in step.path for step in steps)]


# --- and here they are taken -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estate:
    """A tailnet, its owner's token, and a device of the owner's that nobody has approved."""

    tailnet: Tailnet
    owner: User
    device: Node
    token: str

    def ids(self, device: str) -> dict[str, str]:
        """What the steps' names stand for; ``device`` is either of its ids."""
        return {
            "device": device,
            "number": str(self.device.pk),
            "name": self.device.stable_id,
            "fqdn": f"{self.device.name}.{self.tailnet.name}.{settings.BASE_DOMAIN}",
            "user": str(self.owner.pk),
        }


@pytest.fixture
def estate() -> Estate:
    tailnet, owner = people.tailnet()
    people.member(tailnet)
    device = machines.node(tailnet, owner, hostname="box")
    machines.node(tailnet, hostname="web", tags=["tag:server"], preapproved=True)
    machines.node(tailnet, hostname="db", tags=["tag:db"], preapproved=True)
    return Estate(tailnet, owner, device, create_api_token(tailnet=tailnet, user=owner, by=ME).text)


def follow(estate: Estate, steps: Sequence[Step], device: str) -> None:
    provider, ids = Provider(estate.token), estate.ids(device)
    for number, step in enumerate(steps, 1):
        answer = provider.take(step, ids)
        if step.tells is not None:
            assert (number, step.does, list(lacks(answer, step.tells, ids))) == (number, step.does, [])
        if step.keeps:
            ids["id"] = answer[step.keeps]


@pytest.mark.parametrize("name", SEQUENCES)
def test_what_the_provider_asks_for_is_answered_as_it_needs(estate: Estate, name: str) -> None:
    follow(estate, SEQUENCES[name], estate.device.stable_id)


@pytest.mark.parametrize("name", OF_A_DEVICE)
def test_the_older_ids_of_devices_do_as_well(estate: Estate, name: str) -> None:
    follow(estate, SEQUENCES[name], str(estate.device.pk))


def test_an_answer_that_lacks_something_is_found_out() -> None:
    wanted = {"id": "$id", "tags": {"a", "b"}, "key": ABSENT, "created": moment}
    good = {"id": "k1", "tags": ["b", "a"], "created": "2026-11-30T18:37:00Z"}
    assert list(lacks(good, wanted, {"id": "k1"})) == []
    for change in ({"id": "k2"}, {"tags": ["a"]}, {"tags": ["a", "b", "b"]}, {"key": ""}, {"created": ""}):
        ((name, _),) = change.items()
        assert [found.split()[0] for found in lacks(good | change, wanted, {"id": "k1"})] == [f".{name}"]
    assert list(lacks({"on": 1}, {"on": True}, {})) == [".on is 1"]
    assert list(lacks({}, {"list": []}, {})) == [".list is absent"]
