"""Reading people and tailnets. Everything here needs the tailnet's scope open unless it says otherwise."""

from __future__ import annotations

from django.db.models import QuerySet

from accounts.models import ApiToken, AuditEvent, Contact, Invite, Membership, OAuthClient, Tailnet, User
from accounts.roles import Role


def tailnet_by_name(name: str) -> Tailnet | None:
    """A tailnet by its name (tailnets are global: no scope needed)."""
    return Tailnet.objects.filter(name=name).first()


def members() -> QuerySet[Membership]:
    """Everybody in the tailnet, people loaded, by address."""
    return Membership.objects.select_related("user").order_by("user__email", "pk")


def login_names(most: int) -> list[tuple[str, str]]:
    """``(user's id, address)`` of everybody in the tailnet, by address, for a choice among them."""
    found = members().values_list("user_id", "user__email")[:most]
    return [(str(user_id), address) for user_id, address in found]


def open_invites() -> QuerySet[Invite]:
    """Invitations that nobody has accepted, those that ran out too, newest first."""
    return (
        Invite.objects.select_related("invited_by")
        .filter(accepted_at__isnull=True)
        .order_by("-created", "-pk")
    )


def owner() -> User | None:
    """The tailnet's (first) owner."""
    found = Membership.objects.select_related("user").filter(role=Role.OWNER).order_by("pk").first()
    return found.user if found is not None else None


def contacts() -> dict[str, Contact]:
    """The contacts that are others than the owner, by kind."""
    return {one.kind: one for one in Contact.objects.order_by("pk")}


def api_tokens() -> QuerySet[ApiToken]:
    """Tokens made by people, newest first; an OAuth client's hourly ones are left out."""
    return (
        ApiToken.objects.select_related("user").filter(oauth_client__isnull=True).order_by("-created", "-pk")
    )


def oauth_clients() -> QuerySet[OAuthClient]:
    """OAuth clients, newest first."""
    return OAuthClient.objects.select_related("created_by").order_by("-created", "-pk")


def audit_events() -> QuerySet[AuditEvent]:
    """The audit log, newest first."""
    return AuditEvent.objects.order_by("-pk")
