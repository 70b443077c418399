"""Which tags people and programs may give at all."""

from __future__ import annotations

from collections.abc import Collection

from accounts.errors import Invalid
from accounts.models import Tailnet
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


def beyond_tags(tailnet: Tailnet, having: Collection[str], tags: Collection[str]) -> list[str]:
    """Those of ``tags`` that something with the tags ``having`` may not give: neither has nor owns."""
    others = sorted(set(tags) - set(having))
    return [tag for tag in others if not access_policy().tags_give(tailnet, having, tag)]
