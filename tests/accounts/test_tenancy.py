"""No query of a tenant model without a scope, and none beyond it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db.models import Q

from accounts import models as accounts_models
from accounts.actors import Actor
from accounts.managers import TenantManager
from accounts.models import Membership, Tailnet
from accounts.services.tokens import create_api_token
from accounts.tenancy import (
    ScopeError,
    current_tailnet_id,
    each_tailnet,
    memberships_of,
    scope,
    tailnet_of,
)
from controlplane import models as controlplane_models
from nodes import models as nodes_models
from nodes.models import Node, Route
from tests.accounts import factories

CHECKOUT = Path(__file__).resolve().parents[2]
GLOBAL = {
    *accounts_models.GLOBAL_MODELS,
    *nodes_models.GLOBAL_MODELS,
    *controlplane_models.GLOBAL_MODELS,
}
OURS = [
    model
    for label in ("accounts", "nodes", "controlplane")
    for model in apps.get_app_config(label).get_models()
]
TENANT = [model for model in OURS if model not in GLOBAL]
QUERIES: dict[str, Any] = {
    "all": lambda m: m.all(),
    "count": lambda m: m.count(),
    "exists": lambda m: m.exists(),
    "filter": lambda m: m.filter(pk=1),
    "exclude": lambda m: m.exclude(pk=1),
    "get": lambda m: m.get(pk=1),
    "first": lambda m: m.first(),
    "contains": lambda m: m.contains(Tailnet(pk=1)),
    "create": lambda m: m.create(),
    "bulk_create": lambda m: m.bulk_create([]),
    "bulk_update": lambda m: m.bulk_update([], []),
    "get_or_create": lambda m: m.get_or_create(),
    "update_or_create": lambda m: m.update_or_create(),
    "in_bulk": lambda m: m.in_bulk(),
    "update": lambda m: m.update(),
    "values": lambda m: m.values(),
    "select_related": lambda m: m.select_related(),
    "iterator": lambda m: m.iterator(),
    "list": lambda m: list(m.get_queryset()),
    "len": lambda m: len(m.get_queryset()),
    "bool": lambda m: bool(m.get_queryset()),
    "index": lambda m: m.get_queryset()[0],
    "or": lambda m: m.get_queryset() | m.get_queryset(),
}


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_a_model_is_a_tenants_or_listed_as_global(model: Any) -> None:
    if model in GLOBAL:
        assert not isinstance(model._default_manager, TenantManager)
    else:
        assert isinstance(model._default_manager, TenantManager)
        assert not model._meta.get_field("tailnet").null


@pytest.mark.parametrize("query", QUERIES)
def test_unscoped_queries_are_refused(query: str) -> None:
    for model in TENANT:
        with pytest.raises(ScopeError):
            QUERIES[query](model._default_manager)


async def test_unscoped_async_queries_are_refused() -> None:
    with pytest.raises(ScopeError):
        await Node.objects.acount()  # type: ignore[misc]
    with pytest.raises(ScopeError):
        await Node.objects.acreate()  # type: ignore[misc]


@pytest.mark.django_db
def test_none_is_allowed_unscoped_for_forms() -> None:
    assert list(Node.objects.none()) == []


@pytest.mark.django_db
def test_related_managers_are_confined_too() -> None:
    mine, _ = factories.tailnet()
    other, _ = factories.tailnet()
    with pytest.raises(ScopeError):
        list(mine.memberships.all())
    with scope(tailnet=other):
        assert list(mine.memberships.all()) == []
    with scope(tailnet=mine):
        assert mine.memberships.count() == 1


@pytest.mark.django_db
def test_a_scope_sees_its_own_rows_only() -> None:
    mine, owner = factories.tailnet()
    factories.tailnet()
    with scope(tailnet=mine):
        assert [row.user for row in Membership.objects.all()] == [owner]
        assert current_tailnet_id() == mine.pk
    with pytest.raises(ScopeError):
        current_tailnet_id()


@pytest.mark.django_db
def test_nothing_is_created_for_another_tailnet() -> None:
    mine, _ = factories.tailnet()
    other, _ = factories.tailnet()
    user = factories.person()
    with scope(tailnet=mine):
        with pytest.raises(ScopeError):
            Membership.objects.create(tailnet=other, user=user)
        with pytest.raises(ScopeError):
            Membership.objects.bulk_create([Membership(tailnet=other, user=user)])
        assert Membership.objects.create(user=user).tailnet_id == mine.pk


@pytest.mark.django_db
def test_credentials_find_their_tailnet() -> None:
    mine, owner = factories.tailnet()
    made = create_api_token(tailnet=mine, user=owner, by=Actor.command())
    assert tailnet_of("api_token", made.text) == mine
    assert tailnet_of("api_token", made.text + "x") is None
    with pytest.raises(KeyError):
        tailnet_of("no such kind", "x")


@pytest.mark.django_db
def test_each_tailnet_opens_one_scope_after_another() -> None:
    made = [factories.tailnet()[0] for _ in range(3)]
    assert [(tailnet, current_tailnet_id()) for tailnet in each_tailnet()] == [(t, t.pk) for t in made]
    with pytest.raises(ScopeError):
        Route.objects.count()
    busy = factories.member(made[1])
    due = Q(user=busy.user)
    assert list(each_tailnet(due="accounts.Membership", where=due)) == [made[1]]


@pytest.mark.django_db
def test_a_person_is_found_in_every_tailnet() -> None:
    first, owner = factories.tailnet(name="b")
    second, _ = factories.tailnet(name="a")
    with scope(tailnet=second):
        Membership.objects.create(tailnet=second, user=owner)
    assert [membership.tailnet.name for membership in memberships_of(owner.pk)] == ["a", "b"]
    assert first in {membership.tailnet for membership in memberships_of(owner.pk)}


def test_only_tenancy_switches_scopes_off() -> None:
    users = set()
    for root in ("accounts", "nodes", "controlplane"):
        for path in (CHECKOUT / root).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                name = getattr(node, "id", None) or getattr(node, "attr", None)
                imported = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
                if name == "scopes_disabled" or "scopes_disabled" in imported:
                    users.add(path.relative_to(CHECKOUT).as_posix())
    assert users == {"accounts/tenancy.py"}
