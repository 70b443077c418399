"""The API's description in OpenAPI 3.1, made from the views: closed objects, scopes, groups, refusals.

Source: https://spec.openapis.org/oas/v3.1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from django.utils import translation
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema

from accounts.api.values import Closed
from accounts.scopes import ALL, ORDER, READ

Schema = dict[str, Any]

METHODS = ("get", "put", "post", "patch", "delete")
TOKEN_PATH = "/api/v2/oauth/token"  # noqa: S105
BEARER, BASIC, OAUTH = "bearer", "basic", "oauth"
JSON = "application/json"
NO_NUL = "^[^\\u0000]*$"  # PostgreSQL keeps no text that has one, so that the server takes none


class Group(NamedTuple):
    """A chapter of the description: its name, which paths it has (a pattern), what it is about."""

    name: str
    paths: str
    about: str


# The first that fits has the operation.
GROUPS = (
    Group(
        "Trenza", r"^/api/trenza/v1/", "What only Trenza has: approvals, exit nodes, relays, paths, groups."
    ),
    Group("OAuth", r"^/api/v2/oauth/", "How a client gets a token, which lives an hour."),
    Group("Posture attributes", r"attributes(/|$)", "Facts about devices."),
    Group("Devices", r"/devices$|^/api/v2/device/", "Machines in the tailnet."),
    Group("Keys", r"/keys(/|$)", "Auth keys, API tokens and OAuth clients."),
    Group("User invites", r"/user-invites(/|$)", "Invitations into the tailnet."),
    Group("Users", r"/users(/|$)", "People in the tailnet."),
    Group("Policy", r"/acl(/|$)", "The access rules."),
    Group("DNS", r"/dns/", "Name servers, search domains and MagicDNS."),
    Group("Contacts", r"/contacts(/|$)", "Who is written to about the tailnet."),
    Group("Webhooks", r"/webhooks(/|$)", "Addresses that are told of what happens."),
    Group("Logging", r"/logging/", "What was changed, and who talked to whom."),
    Group("Settings", r"/settings$", "What holds for the whole tailnet."),
    Group("Tailnets", r"/organizations/|/tailnet/\{tailnet\}$", "Tailnets themselves."),
    Group("Description", r"/openapi\.json$", "This document."),
)


class Place(NamedTuple):
    """A parameter of paths: what stands there, and an example."""

    about: str
    example: str


PLACES: Mapping[str, Place] = {
    "tailnet": Place("The tailnet's name, or `-` for the one that the token is of.", "-"),
    "organization": Place("Always `-`.", "-"),
    "deviceId": Place("A device's `nodeId`, or its `id`.", "n8x2kqLw3CNTRL"),
    "attributeKey": Place("The name of an attribute.", "custom:tier"),
    "keyId": Place("The `id` of a key, which is no secret.", "k7Hn2WqLCNTRL"),
    "userId": Place("The `id` of a person.", "42"),
    "inviteId": Place("The `id` of an invitation.", "7"),
    "endpointId": Place("The `endpointId` of a webhook.", "wQ4n7xLCNTRL"),
    "kind": Place("Which contact.", "security"),
}

REFUSALS: Mapping[str, str] = {
    "400": "The request is not as it is described here; the message says where.",
    "401": "There is no token, or it is none that is good now.",
    "403": "The token does not include this, or the role of its person does not.",
    "404": "It does not exist, or it is of another tailnet, or not for this token.",
    "409": "It cannot be done as things stand; the message says what is in the way.",
    "412": "Something else is in force than the request says (`If-Match`).",
    "413": "The body is too large.",
    "429": "Too many requests.",
}
RETRY_AFTER: Schema = {
    "description": "After how many seconds it is worth trying again.",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}

AREA_WORDS: Mapping[str, str] = {
    "devices:core": "devices",
    "devices:routes": "the routes and exit nodes that devices offer",
    "devices:posture_attributes": "posture attributes",
    "users": "people and invitations",
    "policy_file": "access rules, and what belongs to the network as such",
    "dns": "DNS settings",
    "auth_keys": "auth keys",
    "api_access_tokens": "API tokens",
    "oauth_keys": "OAuth clients",
    "federated_keys": "federated identities",
    "feature_settings": "settings and webhooks",
    "account_settings": "contacts",
    "services": "services",
    "log_streaming": "log streaming",
    "logs:configuration": "the log of changes",
    "logs:network": "the log of traffic",
}


def scope_words(scope: str) -> str:
    """What a scope lets its token do."""
    if scope in (ALL, ALL + READ):
        return "everything" if scope == ALL else "see everything"
    area = scope.removesuffix(READ)
    words = AREA_WORDS[area]
    return f"see {words}" if scope != area else f"see and change {words}"


def security_schemes() -> Schema:
    """The three ways to present a token; OAuth's says how a client gets one."""
    return {
        BEARER: {"type": "http", "scheme": "bearer", "description": "A token after the word `Bearer`."},
        BASIC: {
            "type": "http",
            "scheme": "basic",
            "description": "A token as the user's name; the password is empty.",
        },
        OAUTH: {
            "type": "oauth2",
            "description": "An OAuth client's token, sent after the word `Bearer`.",
            "flows": {
                "clientCredentials": {
                    "tokenUrl": TOKEN_PATH,
                    "scopes": {scope: scope_words(scope) for scope in ORDER},
                }
            },
        },
    }


class DescribedSchema(AutoSchema):
    """How one operation is described (DRF's ``DEFAULT_SCHEMA_CLASS``)."""

    def get_tags(self) -> list[str]:
        return [group.name for group in GROUPS if re.search(group.paths, self.path)][:1]

    def get_auth(self) -> list[Schema]:
        """One of the scopes is enough, and each way to present the token as good as the other."""
        if not self.view.get_authenticators():
            return []
        scopes = getattr(getattr(self.view, self.method.lower()), "scopes", ())
        return [{BEARER: []}, {BASIC: []}, *({OAUTH: [scope]} for scope in scopes)]

    def get_description(self) -> str:  # type: ignore[override]
        """What :func:`accounts.api.views.operation` says; a view's docstring is for its readers alone."""
        return ""

    def _get_examples(self, *args: Any, **kwargs: Any) -> Schema:
        """An example of a list is written as a list already."""
        examples: Schema = super()._get_examples(*args, **kwargs)  # type: ignore[no-untyped-call]
        for example in examples.values():
            value = example["value"]
            if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
                example["value"] = value[0]
        return examples

    def _map_basic_serializer(self, serializer: Any, direction: str) -> Schema:
        schema: Schema = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        is_closed = isinstance(serializer, Closed) or (
            isinstance(serializer, type) and issubclass(serializer, Closed)
        )
        return schema | {"additionalProperties": False} if is_closed else schema


def finish(result: Schema, generator: Any, request: Any, public: bool) -> Schema:
    """What concerns the whole document (one of drf-spectacular's ``POSTPROCESSING_HOOKS``)."""
    result["components"]["securitySchemes"] = security_schemes()
    used = {tag for _, _, operation in operations(result) for tag in operation["tags"]}
    result["tags"] = [{"name": one.name, "description": one.about} for one in GROUPS if one.name in used]
    for _, _, operation in operations(result):
        _describe_places(operation)
        _describe_refusals(operation)
    for schema in _walk(result["components"]["schemas"]):
        schema.pop("x-spec-enum-id", None)
    sent = _sent_by_clients(result)
    for schema in sent.parts:
        if _is_free_text(schema):
            schema["pattern"] = NO_NUL
    for name, component in result["components"]["schemas"].items():
        if name not in sent.names:
            _drop_bounds(component)
    return result


def operations(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    """``(path, method, operation)`` of all, in the document's order."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _describe_places(operation: Schema) -> None:
    for parameter in operation.get("parameters", ()):
        parameter["schema"].pop("x-spec-enum-id", None)
        place = PLACES.get(parameter["name"]) if parameter["in"] == "path" else None
        if place is not None:
            parameter.setdefault("description", place.about)
            parameter.setdefault("example", place.example)


def _describe_refusals(operation: Schema) -> None:
    for status, response in operation["responses"].items():
        if status in REFUSALS:
            response["description"] = REFUSALS[status]
        if not response["description"]:
            response["description"] = "It was done." if operation.get("requestBody") else "The answer."
    if "429" in operation["responses"]:
        operation["responses"]["429"]["headers"] = {"Retry-After": RETRY_AFTER}


# --- what clients send -----------------------------------------------------------------------------------


def _walk(part: Any) -> Iterator[Schema]:
    """Every object within a part of the document."""
    if isinstance(part, dict):
        yield part
        for value in part.values():
            yield from _walk(value)
    elif isinstance(part, list):
        for value in part:
            yield from _walk(value)


class Sent(NamedTuple):
    """The schemas of all that clients send, and the names of the components among them."""

    parts: list[Schema]
    names: set[str]


def _sent_by_clients(document: Schema) -> Sent:
    """The schemas of queries and bodies, and of what these name."""
    sent, waiting = Sent([], set()), list[Any]()
    for _, _, operation in operations(document):
        queries = (one for one in operation.get("parameters", ()) if one["in"] == "query")
        waiting += [one["schema"] for one in queries]
        bodies = operation.get("requestBody", {}).get("content", {}).values()
        waiting += [body["schema"] for body in bodies]
    while waiting:
        for schema in _walk(waiting.pop()):
            sent.parts.append(schema)
            name = str(schema.get("$ref", "")).rpartition("/")[2]
            if name and name not in sent.names:
                sent.names.add(name)
                waiting.append(document["components"]["schemas"][name])
    return sent


def _drop_bounds(component: Schema) -> None:
    """What only the server says has no bounds that would be rules for clients."""
    for schema in _walk(component):
        for bound in ("minLength", "maxLength", "minItems", "maxItems"):
            if isinstance(schema.get(bound), int):
                del schema[bound]


def _is_free_text(schema: Schema) -> bool:
    kinds = schema.get("type")
    is_text = "string" in kinds if isinstance(kinds, list) else kinds == "string"
    return is_text and not schema.keys() & {"enum", "const", "format", "pattern"}


@cache
def document() -> Schema:
    """The whole description, made once in a process, in English. Not to be changed."""
    with translation.override("en"):
        generator: Any = SchemaGenerator()  # type: ignore[no-untyped-call]
        made: Schema = generator.get_schema(request=None, public=True)
    return made
