"""A person's tailnets: listed, made, deleted."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from accounts.api.fields import Matching
from accounts.api.values import Closed, Flag, Number, Text
from accounts.api.views import OWN, ApiView, operation
from accounts.describe import timestamp
from accounts.errors import Forbidden, NotFound
from accounts.models import Tailnet, User
from accounts.roles import Role
from accounts.services.founding import found_tailnet
from accounts.services.tailnets import delete_tailnet
from accounts.tenancy import memberships_of
from controlplane.services.dns import suffix_of

PAGE = 100  # tailnets in one answer, at most
MAX_TITLE = 200
TITLE = r"^ *[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"
NOBODY = "an OAuth client acts for one tailnet and for no person: use a person's token"


class PageSize(serializers.IntegerField):
    """How many, as a query has it."""

    def __init__(self) -> None:
        super().__init__(min_value=1, max_value=PAGE, required=False, help_text="How many at most.")


class TailnetsQuery(Closed):
    """Which tailnets."""

    limit = PageSize()
    cursor = Matching(r"^[0-9]{1,18}$", "the one in the last answer", required=False)


class OrganizationTailnet(Closed):
    """A tailnet among a person's."""

    id = Text()
    displayName = Text()
    orgId = Text()
    createdAt = serializers.DateTimeField()


class OrganizationTailnets(Closed):
    """Tailnets of a person."""

    tailnets = serializers.ListField(child=OrganizationTailnet())
    cursor = Text(required=False, help_text="There is more: ask again with it.")
    totalCount = Number(required=False, help_text="How many there are in all: with limit or cursor.")


class NewTailnet(Closed):
    """A tailnet that there shall be."""

    displayName = Matching(TITLE, "Harbour", max_length=MAX_TITLE, help_text="What it is called.")


class NewTailnetClient(Closed):
    """An OAuth client that may do everything in the new tailnet."""

    id = Text()
    secret = Text(help_text="Said once.")


class CreatedTailnet(OrganizationTailnet):
    """The tailnet that was made, or is there by this name already."""

    dnsName = Text(help_text="The domain of its devices.")
    alreadyExists = Flag()
    oauthClient = NewTailnetClient(required=False)


def describe_tailnet(tailnet: Tailnet, person: User) -> dict[str, Any]:
    """An API v2 OrganizationTailnet."""
    return {
        "id": str(tailnet.pk),
        "displayName": tailnet.title,
        "orgId": str(person.pk),
        "createdAt": timestamp(tailnet.created),
    }


class OrganizationView(ApiView):
    """``/organizations/{organization}/tailnets``. A person is an organization: the token's, named ``-``."""

    def person(self, organization: str) -> User:
        """The token's person."""
        user = self.caller.token.user
        if user is None:
            raise Forbidden(NOBODY)
        if organization not in (OWN, str(user.pk)):
            raise NotFound("there is no such organization, or this token is not of it")
        return user

    @operation(
        "listOrganizationTailnets",
        about="List a person's tailnets",
        scope="account_settings:read",
        of_person=True,
        query=TailnetsQuery,
        answer=OrganizationTailnets,
    )
    def get(self, organization: str, query: dict[str, Any]) -> dict[str, Any]:
        """Those in which the token's person has a place. With ``limit`` or ``cursor`` they come in pages;
        without, all come at once, and nothing else does: the Go client can read nothing but lists then.
        """
        person = self.person(organization)
        places = [one for one in memberships_of(person.pk) if one.is_active]
        places.sort(key=lambda one: one.tailnet_id)
        after, most = int(query.get("cursor", 0)), query.get("limit", PAGE)
        if not query:
            return {"tailnets": [describe_tailnet(one.tailnet, person) for one in places]}
        left = [one for one in places if one.tailnet_id > after]
        shown = [describe_tailnet(one.tailnet, person) for one in left[:most]]
        more = {"cursor": str(left[most - 1].tailnet_id)} if len(left) > most else {}
        return {"tailnets": shown, "totalCount": len(places)} | more

    @operation(
        "createOrganizationTailnet",
        about="Make a tailnet",
        scope="account_settings",
        of_person=True,
        body=NewTailnet,
        answer=CreatedTailnet,
        example={"displayName": "Harbour"},
    )
    def post(self, organization: str, body: dict[str, Any]) -> dict[str, Any]:
        """The token's person owns it. The answer has an OAuth client of the new tailnet, and its secret.

        Where the person owns one with this name already, that one is the answer, without a client. Whatever
        the person's role is where the token is from, it does, as in the panel: what is made is their own. An
        OAuth client makes none, with any scope: Tailscale's belong to an organization and hold no people,
        but every tailnet here has an owner, and nobody becomes one by what another admin's program does.
        """
        person, title = self.person(organization), body["displayName"].strip(" \n")
        for place in memberships_of(person.pk):
            if place.role == Role.OWNER and place.tailnet.title == title:
                return self._made(place.tailnet, person) | {"alreadyExists": True}
        tailnet, client = found_tailnet(owner=person, title=title, by=self.caller.actor)
        secret = {"id": client.client.public_id, "secret": client.text}
        return self._made(tailnet, person) | {"alreadyExists": False, "oauthClient": secret}

    def _made(self, tailnet: Tailnet, person: User) -> dict[str, Any]:
        return describe_tailnet(tailnet, person) | {"dnsName": suffix_of(tailnet)}


class TailnetView(ApiView):
    """``/tailnet/{tailnet}``"""

    @operation("deleteTailnet", about="Delete the tailnet", scope="account_settings")
    def delete(self) -> dict[str, Any]:
        """With its devices, people, keys and logs, and for good. The token must be its owner's."""
        if self.caller.is_client:
            raise Forbidden(NOBODY)
        delete_tailnet(tailnet=self.caller.tailnet, by=self.caller.actor)
        return {}
