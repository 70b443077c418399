"""Which tags people and programs may give at all."""

from __future__ import annotations

from collections.abc import Collection

from accounts.errors import Forbidden, Invalid
from accounts.models import Tailnet, User
from nodes.policy import access_policy


def refuse_unknown_tags(tailnet: Tailnet, tags: Collection[str]) -> None:
    """Raise :class:`Invalid` for tags that the access rules do not define, once they define any.

    Needs the tailnet's scope.
    """
    unknown = access_policy().unknown_tags(tailnet, tags)
    if unknown:
        raise Invalid(
            f"requested tags [{' '.join(unknown)}] are invalid or not permitted: "
            "the access rules (tagOwners) define other ones only"
        )


def refuse_foreign_tags(tailnet: Tailnet, person: User | None, tags: Collection[str]) -> None:
    """Raise :class:`Forbidden` for tags that a person does not own by the access rules: who manages devices
    would else put them where rules let only owners. Needs the tailnet's scope.
    """
    if person is None or not tags:  # a command; or a client, which is asked for its own tags
        return
    if foreign := access_policy().foreign_tags(tailnet, person, tags):
        raise Forbidden(
            f"requested tags [{' '.join(foreign)}] are invalid or not permitted: you are not among their "
            "owners (tagOwners) in the access rules"
        )


def beyond_tags(tailnet: Tailnet, having: Collection[str], tags: Collection[str]) -> list[str]:
    """Those of ``tags`` that something with the tags ``having`` may not give: neither has nor owns."""
    others = sorted(set(tags) - set(having))
    return [tag for tag in others if not access_policy().tags_give(tailnet, having, tag)]
