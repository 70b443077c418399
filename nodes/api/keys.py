"""Auth keys, API tokens and OAuth clients: three kinds of key with one namespace of ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from django.db.models import Q, QuerySet
from django.utils import timezone
from rest_framework import serializers

from accounts.access import NOT_HERE, client_for, token_for, visible_clients, visible_tokens
from accounts.api.callers import Caller
from accounts.api.fields import Matching
from accounts.api.values import Choice, Closed, Flag, Number, Text, Texts
from accounts.api.views import ApiView, operation
from accounts.describe import describe_api_token, describe_oauth_client
from accounts.errors import Conflict, Forbidden, NotFound
from accounts.models import ApiToken, Membership, OAuthClient
from accounts.scopes import READ, SCOPES
from accounts.services import tokens
from nodes.access import key_for, visible_keys
from nodes.describe import describe_auth_key
from nodes.models import PreAuthKey
from nodes.services import authkeys
from nodes.services.tagging import beyond_tags
from nodes.tags import MAX_TAGS

AUTH, API, CLIENT, FEDERATED = "auth", "api", "client", "federated"
MAX_ID = 64
MAX_SECONDS = int(authkeys.MAX_LIFETIME.total_seconds())
TAG = r"\Atag:[A-Za-z][A-Za-z0-9-]{0,62}\Z"


# --- what requests and answers hold ----------------------------------------------------------------------


class TagList(Texts):
    """Tags; ``null`` is none."""

    child = Matching(TAG, "tag:web")


class ScopeList(Texts):
    """Scopes; ``null`` is none."""

    child = Choice(choices=sorted(SCOPES))


class KeyType(Choice):
    """The kinds that can be made; the others are refused in words."""

    default_error_messages = {
        "invalid_choice": "is neither auth nor client: API tokens are made in the panel, by the person that "
        "they act as, and federated identities are not offered by this server"
    }


class DeviceCreation(Closed):
    """What an auth key lets a device be."""

    reusable = Flag(default=False, help_text="Whether it lets in more than one device.")
    ephemeral = Flag(default=False, help_text="Whether its devices are deleted soon after they go offline.")
    preauthorized = Flag(default=False, help_text="Whether its devices need no approval.")
    tags = TagList(required=False, max_length=MAX_TAGS, help_text="What its devices belong to.")


class DeviceCapabilities(Closed):
    """What an auth key is for."""

    create = DeviceCreation(required=False)  # type: ignore[assignment]  # DRF takes it out


class KeyCapabilities(Closed):
    """What an auth key may do."""

    devices = DeviceCapabilities(required=False)


class KeyTerms(Closed):
    """What OAuth clients are asked for with."""

    description = Text(required=False, max_length=tokens.MAX_DESCRIPTION, help_text="What it is for.")
    scopes = ScopeList(required=False, help_text="What an OAuth client may do.")
    tags = TagList(
        required=False, max_length=tokens.MAX_TAGS, help_text="The tags that an OAuth client may give."
    )

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("keyType") == FEDERATED:  # before its members are refused
            raise serializers.ValidationError({"keyType": [KeyType.default_error_messages["invalid_choice"]]})
        return super().to_internal_value(data)


class NewKey(KeyTerms):
    """A key to make. ``capabilities`` and ``expirySeconds`` are an auth key's, the rest a client's."""

    keyType = KeyType(choices=[AUTH, CLIENT], default=AUTH)
    capabilities = KeyCapabilities(required=False)
    expirySeconds = Number(
        required=False, min_value=0, max_value=MAX_SECONDS, help_text="How long it lives; 0 is 90 days."
    )


class ChangedKey(KeyTerms):
    """All that an OAuth client is from now on: what is left out is empty."""

    keyType = KeyType(choices=[CLIENT], default=CLIENT)
    scopes = ScopeList(min_length=1, allow_null=False, help_text="What it may do.")


class CreatedDevice(Closed):
    """What a device is that joins by it."""

    reusable = Flag()
    ephemeral = Flag()
    preauthorized = Flag()
    tags = Texts(allow_null=False)


class CreatedDevices(Closed):
    """What devices are that join by it."""

    create = CreatedDevice()  # type: ignore[assignment]  # as above


class AuthKeyCapabilities(Closed):
    """What an auth key may do."""

    devices = CreatedDevices()


class Key(Closed):
    """An auth key, an API token or an OAuth client."""

    id = Text()
    keyType = Choice(choices=[AUTH, API, CLIENT])
    key = Text(required=False, help_text="The secret: only when it was made just now.")
    description = Text()
    created = serializers.DateTimeField()
    updated = serializers.DateTimeField(required=False, help_text="Of a client.")
    expires = serializers.DateTimeField(required=False, help_text="Absent when it does not end.")
    expirySeconds = Number(required=False, help_text="How long it lives from the start.")
    revoked = serializers.DateTimeField(required=False, help_text="Absent when it is not.")
    invalid = Flag(help_text="Whether it is used up, has ended or was revoked.")
    userId = Text(required=False, help_text="Whose it is; absent when it is no person's.")
    capabilities = AuthKeyCapabilities(required=False, help_text="Of an auth key.")
    scopes = Texts(required=False, allow_null=False, help_text="Of an API token or a client.")
    tags = Texts(required=False, allow_null=False, help_text="Of a client.")


class KeyList(Closed):
    """Keys, newest first within each kind."""

    keys = Key(many=True)


class KeyQuery(Closed):
    """Which keys."""

    all = Choice(
        choices=["true", "false"],
        default="false",
        help_text="Every key of the tailnet that the token may see. Otherwise a person's token lists that "
        "person's keys, and an OAuth client's the OAuth clients.",
    )


# --- the kinds -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of key: the scope that it needs, how its rows are found and shown."""

    area: str
    visible: Callable[[Membership], QuerySet[Any]]
    of_person: Callable[[Any], Q]
    describe: Callable[[Any, datetime], dict[str, Any]]


def _living_clients(membership: Membership) -> QuerySet[OAuthClient]:
    """A revoked client is gone; keys and tokens stay, as invalid."""
    return visible_clients(membership).filter(revoked_at=None)


KINDS = {
    AUTH: Kind(
        "auth_keys",
        visible_keys,
        lambda user_id: Q(user_id=user_id) | Q(user=None, created_by_id=user_id),
        lambda key, now: describe_auth_key(key, now=now),
    ),
    API: Kind(
        "api_access_tokens",
        visible_tokens,
        lambda user_id: Q(user_id=user_id),
        lambda token, now: describe_api_token(token, now=now),
    ),
    CLIENT: Kind(
        "oauth_keys",
        _living_clients,
        lambda user_id: Q(created_by_id=user_id),
        lambda client, _now: describe_oauth_client(client),
    ),
}
TO_READ = tuple(kind.area + READ for kind in KINDS.values())
TO_WRITE = tuple(kind.area for kind in KINDS.values())


def _kinds(caller: Caller, ending: str) -> dict[str, Kind]:
    """The kinds that the token's scopes are about; raises :class:`Forbidden` when there are none."""
    found = {name: kind for name, kind in KINDS.items() if caller.has(kind.area + ending)}
    if not found:
        caller.need(KINDS[AUTH].area + ending)
    return found


def _found(caller: Caller, key_id: str, ending: str) -> tuple[str, Any]:
    """A key's kind and row; those of kinds that the token does not include look missing."""
    if key_id.isprintable() and len(key_id) <= MAX_ID:  # PostgreSQL takes no NUL, and no key is called so
        for name, kind in _kinds(caller, ending).items():
            row = kind.visible(caller.membership).filter(public_id=key_id).first()
            if row is not None:
                return name, row
    raise NotFound(NOT_HERE)


def _own(caller: Caller, key_id: str) -> Any | None:
    """A person's own auth key or API token, if the token includes its kind; their role does not matter."""
    for name in (AUTH, API):
        kind = KINDS[name]
        if not caller.is_client and caller.includes(kind.area):
            rows = kind.visible(caller.membership).filter(user_id=caller.membership.user_id)
            row = rows.filter(public_id=key_id).first()
            if row is not None:
                return row
    return None


def _to_revoke(caller: Caller, key_id: str) -> Any:
    """A key of any kind that the token may revoke; whether its person may, is theirs to prove who do it."""
    own = _own(caller, key_id)
    if own is not None:
        return own
    name, row = _found(caller, key_id, READ)
    caller.need(KINDS[name].area)
    return row


# --- making ----------------------------------------------------------------------------------------------


def _make_auth_key(caller: Caller, body: Mapping[str, Any]) -> dict[str, Any]:
    caller.need("auth_keys")
    if body.get("scopes") or body.get("tags"):
        raise Conflict("an auth key has no scopes, and its tags are in capabilities.devices.create.tags")
    wanted = dict(body.get("capabilities", {}).get("devices", {}).get("create", {}))
    tags = wanted.pop("tags", None) or []
    if caller.is_client:
        _check_tags_of_client(caller, tags)
    seconds = body.get("expirySeconds")
    made = authkeys.create_auth_key(
        tailnet=caller.tailnet,
        by=caller.actor,
        tags=tags,
        lifetime=timedelta(seconds=seconds) if seconds else authkeys.DEFAULT_LIFETIME,
        description=body.get("description", ""),
        **wanted,
    )
    return describe_auth_key(made.key, now=timezone.now(), secret=made.text)


def _check_tags_of_client(caller: Caller, tags: list[str]) -> None:
    """No person stands behind a client, so that its keys need tags; it gives its own, and what these own."""
    if not caller.token.tags:
        raise Forbidden("this OAuth client has no tags, so it cannot make auth keys: give it some")
    if not tags:
        raise Conflict(f"an OAuth client's auth key needs tags, out of {', '.join(caller.token.tags)}")
    beyond = beyond_tags(caller.tailnet, caller.token.tags, tags)
    if beyond:
        raise Forbidden(
            f"requested tags [{' '.join(beyond)}] are invalid or not permitted: this OAuth client gives "
            f"{', '.join(caller.token.tags)}"
        )


def _make_client(caller: Caller, body: Mapping[str, Any]) -> dict[str, Any]:
    caller.need("oauth_keys")
    if "capabilities" in body or body.get("expirySeconds"):
        raise Conflict("an OAuth client does not expire, and has no capabilities but scopes and tags")
    if not body.get("scopes"):
        raise Conflict("an OAuth client needs scopes")
    terms = _terms(caller, body)
    made = tokens.create_oauth_client(tailnet=caller.tailnet, by=caller.actor, **terms)
    return describe_oauth_client(made.client, secret=made.text)


def _terms(caller: Caller, body: Mapping[str, Any]) -> dict[str, Any]:
    """What a client shall be; no token gives what it has not got."""
    tags = sorted(set(body.get("tags") or []))
    caller.need_to_give(body["scopes"])
    if caller.is_client and set(tags) - set(caller.token.tags):
        raise Forbidden("an OAuth client gives only tags that are its own")
    return {"scopes": body["scopes"], "tags": tags, "description": body.get("description", "")}


# --- the addresses ---------------------------------------------------------------------------------------


class KeysView(ApiView):
    """``/tailnet/{tailnet}/keys``"""

    @operation("listTailnetKeys", about="List keys", any_of=TO_READ, query=KeyQuery, answer=KeyList)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        return {"keys": list(self._listed(everything=query["all"] == "true"))}

    def _listed(self, *, everything: bool) -> Iterator[dict[str, Any]]:
        caller, now = self.caller, timezone.now()
        for name, kind in _kinds(caller, READ).items():
            rows = kind.visible(caller.membership)
            if not everything and caller.is_client and name != CLIENT:
                continue
            if not everything and not caller.is_client:
                rows = rows.filter(kind.of_person(caller.membership.user_id))
            yield from (kind.describe(row, now) for row in rows)

    @operation(
        "createKey",
        about="Make an auth key or an OAuth client",
        any_of=("auth_keys", "oauth_keys"),
        body=NewKey,
        answer=Key,
        example={
            "keyType": "auth",
            "description": "web servers",
            "expirySeconds": 86400,
            "capabilities": {"devices": {"create": {"preauthorized": True, "tags": ["tag:web"]}}},
        },
    )
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        make = _make_client if body["keyType"] == CLIENT else _make_auth_key
        return make(self.caller, body)


class KeyView(ApiView):
    """``/tailnet/{tailnet}/keys/{key_id}``"""

    @operation("getKey", about="Get a key", answer=Key)
    def get(self, key_id: str) -> dict[str, Any]:
        """Needs the scope `auth_keys:read`, `api_access_tokens:read` or `oauth_keys:read`, by the kind
        of key; a token gets itself without any.
        """
        caller, now = self.caller, timezone.now()
        if key_id == caller.token.public_id:
            return describe_api_token(caller.token, now=now)
        if caller.token.oauth_client is not None and key_id == caller.token.oauth_client.public_id:
            return describe_oauth_client(caller.token.oauth_client)
        name, row = _found(caller, key_id, READ)
        return KINDS[name].describe(row, now)

    @operation(
        "setKey",
        about="Change an OAuth client",
        scope="oauth_keys",
        body=ChangedKey,
        answer=Key,
        example={
            "keyType": "client",
            "description": "builds",
            "scopes": ["auth_keys"],
            "tags": ["tag:ci"],
        },
    )
    def put(self, key_id: str, body: dict[str, Any]) -> dict[str, Any]:
        name, row = _found(self.caller, key_id, READ)
        if name != CLIENT:
            raise Conflict("only OAuth clients can be changed: revoke this key and make another")
        client = client_for(membership=self.caller.membership, public_id=row.public_id)
        terms = _terms(self.caller, body)
        return describe_oauth_client(tokens.update_oauth_client(client=client, by=self.caller.actor, **terms))

    @operation("deleteKey", about="Revoke a key", any_of=TO_WRITE, of_person=True)
    def delete(self, key_id: str) -> dict[str, Any]:
        """A person may revoke what is their own, whatever their role is by now."""
        caller = self.caller
        row = _to_revoke(caller, key_id)
        if isinstance(row, PreAuthKey):
            key = key_for(membership=caller.membership, public_id=row.public_id, revoke=True)
            authkeys.revoke_auth_key(key=key, by=caller.actor)
        elif isinstance(row, ApiToken):
            token = token_for(membership=caller.membership, public_id=row.public_id)
            tokens.revoke_api_token(token=token, by=caller.actor)
        else:
            client = client_for(membership=caller.membership, public_id=row.public_id)
            tokens.revoke_oauth_client(client=client, by=caller.actor)
        return {}


cast(Any, KeyView.get).scopes = TO_READ
