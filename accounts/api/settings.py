"""A tailnet's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accounts.api.values import Choice, Closed, Flag, Number, Text
from accounts.api.views import ApiView, operation
from accounts.errors import Conflict
from accounts.models import Tailnet
from accounts.models.tailnets import MAX_KEY_DURATION_DAYS
from accounts.services.tailnets import update_settings

MAX_LINK = 500
# What can be set, by its name in the API; the others say what holds here, and stay so.
NAMES = {
    "devicesApprovalOn": "device_approval",
    "devicesKeyDurationDays": "key_duration_days",
    "usersApprovalOn": "users_approval",
    "networkFlowLoggingOn": "flow_logging",
}
# What the API's clients name: which of several routers carries a subnet.
ROUTE_SELECTIONS = ["active-passive-failover", "regional-routing", "regional-routing-failover", "magicroute"]
FIXED: Mapping[str, Any] = {
    "aclsExternallyManagedOn": False,
    "aclsExternalLink": "",
    "devicesAutoUpdatesOn": False,
    "usersRoleAllowedToJoinExternalTailnets": "none",
    "regionalRoutingOn": False,
    "routeSelection": "active-passive-failover",
    "postureIdentityCollectionOn": False,
    "httpsEnabled": False,
}


class Settings(Closed):
    """All settings."""

    aclsExternallyManagedOn = Flag(help_text="Whether the policy is kept elsewhere.")
    aclsExternalLink = Text(max_length=MAX_LINK, help_text="Where the policy is kept.")
    devicesApprovalOn = Flag(help_text="Whether new devices wait until somebody approves them.")
    devicesAutoUpdatesOn = Flag(help_text="Whether clients update themselves.")
    devicesKeyDurationDays = Number(
        min_value=1, max_value=MAX_KEY_DURATION_DAYS, help_text="Days until a device must sign in again."
    )
    usersApprovalOn = Flag(help_text="Whether new people wait until somebody approves them.")
    usersRoleAllowedToJoinExternalTailnets = Choice(choices=["none", "member", "admin"])
    networkFlowLoggingOn = Flag(help_text="Whether Trenza's clients report who talks to whom.")
    regionalRoutingOn = Flag()
    routeSelection = Choice(choices=ROUTE_SELECTIONS, help_text="Which of several routers carries a subnet.")
    postureIdentityCollectionOn = Flag()
    httpsEnabled = Flag()


class SettingsChange(Settings):
    """Those settings that shall change; ``null`` leaves one as it is."""

    def get_fields(self) -> dict[str, Any]:
        fields = super().get_fields()
        for field in fields.values():
            field.required, field.allow_null = False, True
        return fields


def describe_settings(tailnet: Tailnet) -> dict[str, Any]:
    """An API v2 TailnetSettings."""
    return {**FIXED, **{name: getattr(tailnet, ours) for name, ours in NAMES.items()}}


class SettingsView(ApiView):
    """``/tailnet/{tailnet}/settings``"""

    @operation("getTailnetSettings", about="Get settings", scope="feature_settings:read", answer=Settings)
    def get(self) -> dict[str, Any]:
        return describe_settings(self.caller.tailnet)

    @operation(
        "updateTailnetSettings",
        about="Change settings",
        scope="feature_settings",
        body=SettingsChange,
        answer=Settings,
        example={"devicesApprovalOn": True},
    )
    def patch(self, body: dict[str, Any]) -> dict[str, Any]:
        wanted = {name: value for name, value in body.items() if value is not None}
        for name, value in FIXED.items():
            if wanted.pop(name, value) != value:
                raise Conflict(
                    f"{name} is {str(value).lower() or 'empty'} on this server and cannot be changed"
                )
        values = {NAMES[name]: value for name, value in wanted.items()}
        tailnet = update_settings(tailnet=self.caller.tailnet, by=self.caller.actor, **values)
        return describe_settings(tailnet)
