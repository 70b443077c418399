"""Which tailnet a request, credential or sweep belongs to; the only module that may look across tailnets.

Every entry point (middleware, control request, consumer, task, command) opens its own :func:`scope`. Apps
above register their credentials in ``AppConfig.ready()``, so this module imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db.models import Model, Q
from django_scopes import ScopeError, get_scope, scopes_disabled
from django_scopes import scope as open_scope

from accounts.managers import TenantManager, TenantQuerySet, scoped_tailnet_id
from accounts.models import Membership, Tailnet

__all__ = [
    "ScopeError",
    "TenantManager",
    "TenantQuerySet",
    "current_tailnet_id",
    "each_tailnet",
    "find_by_credential",
    "memberships_of",
    "register_credential",
    "scope",
    "tailnet_of",
]


def _as_is(value: str) -> str:
    return value


@dataclass(frozen=True, slots=True)
class CredentialKind:
    """Where the rows of one kind of credential are, and how a presented value becomes the stored one."""

    model_label: str
    lookup_field: str
    normalise: Callable[[str], str]


_KINDS: dict[str, CredentialKind] = {}


def register_credential(
    kind: str, model_label: str, lookup_field: str, *, normalise: Callable[[str], str] = _as_is
) -> None:
    """Tell :func:`tailnet_of` about a credential; ``lookup_field`` must be unique across the server."""
    _KINDS[kind] = CredentialKind(model_label, lookup_field, normalise)


def scope(*, tailnet: Tailnet | int) -> AbstractContextManager[None]:
    """Confine every query of a tenant model to one tailnet."""
    manager: AbstractContextManager[None] = open_scope(tailnet=tailnet)
    return manager


def current_tailnet_id() -> int:
    """The open scope's tailnet; raises ``ScopeError`` outside every scope."""
    if "tailnet" not in get_scope():
        raise ScopeError("no scope is open")
    found = scoped_tailnet_id()
    if found is None:
        raise ScopeError("no scope is open")
    return found


def find_by_credential(kind: str, value: str) -> Any | None:
    """The row that holds this credential, in whichever tailnet, which is loaded; ``None`` if none does.

    The row proves nothing yet: it may have expired or been revoked. Open its tailnet's scope to use it.
    """
    credential = _KINDS[kind]
    model = apps.get_model(credential.model_label)
    with scopes_disabled():
        return (
            model._default_manager.select_related("tailnet")
            .filter(**{credential.lookup_field: credential.normalise(value)})
            .first()
        )


def tailnet_of(kind: str, value: str) -> Tailnet | None:
    """The tailnet that a credential belongs to, or ``None`` when no row holds it."""
    row = find_by_credential(kind, value)
    tailnet: Tailnet | None = row.tailnet if row is not None else None
    return tailnet


def each_tailnet(due: str | None = None, where: Q | None = None) -> Iterator[Tailnet]:
    """Every tailnet, one after another, with its scope open while the loop's body runs.

    With ``due`` (a model label) and ``where``, only tailnets that have such rows: a sweep over nothing costs
    one query. Let the loop run to its end: leaving it early leaves the scope open until the iterator dies.
    """
    tailnets = Tailnet.objects.order_by("pk")
    if due is not None:
        model: type[Model] = apps.get_model(due)
        with scopes_disabled():
            ids = model._default_manager.filter(where or Q()).values_list("tailnet_id", flat=True)
            tailnets = tailnets.filter(pk__in=list(ids.order_by().distinct()))
    for tailnet in tailnets:
        with open_scope(tailnet=tailnet):
            yield tailnet


def totals(label: str, *by: str, where: Q | None = None, **sums: Any) -> list[dict[str, Any]]:
    """Sums over all tailnets' rows of a model, one for each value of ``by``; never a row.

    For the server's own measures, which say nothing of any one tailnet.
    """
    with scopes_disabled():
        rows = apps.get_model(label)._default_manager.filter(where or Q()).order_by()
        return list(rows.values(*by).annotate(**sums)) if by else [rows.aggregate(**sums)]


def memberships_of(user_id: int) -> list[Membership]:
    """A person's memberships in every tailnet, tailnets loaded, by name (for switcher and confirm page)."""
    with scopes_disabled():
        return list(
            Membership.objects.select_related("tailnet", "user")
            .filter(user_id=user_id)
            .order_by("tailnet__name")
        )
