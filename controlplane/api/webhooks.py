"""Webhooks: who is told of what happens in the tailnet."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from accounts.access import NOT_HERE
from accounts.api.fields import Matching, beyond_the_schema
from accounts.api.values import Choice, Closed, Text, Texts
from accounts.api.views import ApiView, operation
from accounts.describe import timestamp
from accounts.errors import NotFound
from controlplane.models import Webhook
from controlplane.notices.bodies import CHATS
from controlplane.notices.occasions import SUBSCRIPTIONS, UNHEARD
from controlplane.notices.outgoing import MAX_URL
from controlplane.services import webhooks

READS, WRITES = "feature_settings:read", "feature_settings"
URL = r"^https?://[^\x00-\x20\x7f/?#@]+([/?][^\x00-\x20\x7f]*)?$"


class WebhookDetails(Closed):
    """A webhook."""

    endpointId = Text()
    endpointUrl = Text(help_text="Where it leads; its host alone for those who may not change it.")
    providerType = Choice(choices=["", *CHATS], help_text="Whose form messages have; empty: signed JSON.")
    creatorLoginName = Text()
    created = serializers.DateTimeField()
    lastModified = serializers.DateTimeField()
    subscriptions = Texts(allow_null=False, help_text="What it is told of.")
    secret = Text(required=False, help_text="What deliveries are signed with: said once.")


class Webhooks(Closed):
    """The webhooks of a tailnet."""

    webhooks = serializers.ListField(child=WebhookDetails())


class Subscriptions(serializers.ListField):
    """Events and categories of events, at least one."""

    child = Choice(choices=sorted(SUBSCRIPTIONS | UNHEARD))

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"min_length": 1, "max_length": 100} | options))


class WebhookRequest(Closed):
    """A webhook that there shall be."""

    endpointUrl = Matching(URL, "https://hooks.example.com/vpn", max_length=MAX_URL)
    providerType = Choice(choices=["", *CHATS], required=False)
    subscriptions = Subscriptions()


class WebhookChange(Closed):
    """What shall change of a webhook."""

    subscriptions = Subscriptions(required=False)


class WebhookView(ApiView):
    """What the addresses of webhooks have in common."""

    def described(self, webhook: Webhook, secret: str | None = None) -> dict[str, Any]:
        """An API v2 Webhook. The address of a chat service is a secret by itself."""
        told = {
            "endpointId": webhook.public_id,
            "endpointUrl": webhook.url if self.caller.has(WRITES) else webhook.place,
            "providerType": webhook.provider,
            "creatorLoginName": webhook.creator_name,
            "created": timestamp(webhook.created),
            "lastModified": timestamp(webhook.updated),
            "subscriptions": webhook.subscriptions,
        }
        return told | ({"secret": secret} if secret is not None else {})

    def one(self, endpoint_id: str) -> Webhook:
        """The tailnet's webhook of this id."""
        found = Webhook.objects.select_related("tailnet").filter(public_id=endpoint_id).first()
        if found is None:
            raise NotFound(NOT_HERE)
        return found


class WebhooksView(WebhookView):
    """``/tailnet/{tailnet}/webhooks``"""

    @operation("listWebhooks", about="List webhooks", scope=READS, answer=Webhooks)
    def get(self) -> dict[str, Any]:
        return {"webhooks": [self.described(one) for one in Webhook.objects.order_by("pk")]}

    @operation(
        "createWebhook",
        about="Make a webhook",
        scope=WRITES,
        body=WebhookRequest,
        answer=WebhookDetails,
        example={"endpointUrl": "https://hooks.example.com/vpn", "subscriptions": ["nodeCreated"]},
    )
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer has the secret that deliveries are signed with; no other answer has it again."""
        with beyond_the_schema():
            webhook, secret = webhooks.create_webhook(
                tailnet=self.caller.tailnet,
                url=body["endpointUrl"],
                subscriptions=body["subscriptions"],
                provider=body.get("providerType", ""),
                by=self.caller.actor,
            )
        return self.described(webhook, secret)


class OneView(WebhookView):
    """``/webhooks/{endpoint_id}``"""

    @operation("getWebhook", about="Get a webhook", scope=READS, answer=WebhookDetails)
    def get(self, endpoint_id: str) -> dict[str, Any]:
        return self.described(self.one(endpoint_id))

    @operation(
        "updateWebhook",
        about="Change a webhook",
        scope=WRITES,
        body=WebhookChange,
        answer=WebhookDetails,
        example={"subscriptions": ["categoryTailnetManagement"]},
    )
    def patch(self, endpoint_id: str, body: dict[str, Any]) -> dict[str, Any]:
        webhook = webhooks.update_webhook(webhook=self.one(endpoint_id), by=self.caller.actor, **body)
        return self.described(webhook)

    @operation("deleteWebhook", about="Remove a webhook", scope=WRITES)
    def delete(self, endpoint_id: str) -> dict[str, Any]:
        """With it goes what was still to be sent to it."""
        webhooks.delete_webhook(webhook=self.one(endpoint_id), by=self.caller.actor)
        return {}


class TrialView(WebhookView):
    """``/webhooks/{endpoint_id}/test``"""

    @operation("testWebhook", about="Send a test event", scope=WRITES)
    def post(self, endpoint_id: str) -> dict[str, Any]:
        """It is sent soon after the answer."""
        webhooks.try_webhook(webhook=self.one(endpoint_id), by=self.caller.actor)
        return {}


class SecretView(WebhookView):
    """``/webhooks/{endpoint_id}/rotate``"""

    @operation("rotateWebhookSecret", about="Make another secret", scope=WRITES, answer=WebhookDetails)
    def post(self, endpoint_id: str) -> dict[str, Any]:
        """The answer has it; what is sent from now on is signed with it."""
        webhook, secret = webhooks.rotate_webhook(webhook=self.one(endpoint_id), by=self.caller.actor)
        return self.described(webhook, secret)
