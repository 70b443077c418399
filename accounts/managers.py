"""Managers of tenant models: every query is confined to the open scope's tailnet, and refused without one.

django-scopes' own disabled queryset lets ``exists``, ``contains``, ``create`` and ``bulk_create`` pass; this
one refuses every public method, those of later Django versions included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from django.db import models
from django_scopes import ScopeError, get_scope

if TYPE_CHECKING:
    from collections.abc import Iterable

M = TypeVar("M", bound=models.Model)

DIMENSION = "tailnet"
# What a queryset must still do while nobody looks at rows: being emptied and being bound to a database.
HARMLESS = frozenset({"none", "using", "as_manager", "db", "ordered", "query", "resolve_expression"})


class RefusingQuerySet(models.QuerySet[M]):
    """A queryset outside every scope: any use of it is a bug, and raises ``ScopeError``."""

    def none(self) -> Any:
        return TenantQuerySet[M](model=self.model, using=self.db).none()


def _refuse(self: RefusingQuerySet[Any], *args: Any, **kwargs: Any) -> NoReturn:
    raise ScopeError(f"{self.model.__name__} rows belong to a tailnet: open scope(tailnet=…) first")


for _name in dir(models.QuerySet):
    if _name not in HARMLESS and not _name.startswith("_") and callable(getattr(models.QuerySet, _name)):
        setattr(RefusingQuerySet, _name, _refuse)
for _name in ("__iter__", "__len__", "__bool__", "__getitem__", "__aiter__", "__and__", "__or__", "__xor__"):
    setattr(RefusingQuerySet, _name, _refuse)


class TenantQuerySet(models.QuerySet[M]):
    """Rows of the open scope's tailnet; also what is created must belong to it."""

    def create(self, **values: Any) -> M:
        tailnet = scoped_tailnet_id()
        if tailnet is not None:
            if DIMENSION not in values and f"{DIMENSION}_id" not in values:
                values[f"{DIMENSION}_id"] = tailnet
            self._check(self.model(**values), tailnet)
        return super().create(**values)

    def bulk_create(self, objs: Iterable[M], *args: Any, **kwargs: Any) -> list[M]:
        rows = list(objs)
        tailnet = scoped_tailnet_id()
        if tailnet is not None:
            for row in rows:
                self._check(row, tailnet)
        return super().bulk_create(rows, *args, **kwargs)

    def _check(self, row: models.Model, tailnet: int) -> None:
        if getattr(row, f"{DIMENSION}_id") != tailnet:
            raise ScopeError(f"this {self.model.__name__} belongs to another tailnet than the open scope")


def scoped_tailnet_id() -> int | None:
    """The open scope's tailnet; ``None`` where tenancy.py has switched scopes off."""
    scope = get_scope()
    if not scope.get("_enabled", True):
        return None
    value = scope[DIMENSION]
    return int(getattr(value, "pk", value))


class TenantManager(models.Manager[M]):
    """``objects`` of every model that has a ``tailnet``."""

    def get_queryset(self) -> models.QuerySet[M]:
        scope = get_scope()
        if not scope.get("_enabled", True):
            return TenantQuerySet(self.model, using=self._db)
        if DIMENSION not in scope:
            return RefusingQuerySet(self.model, using=self._db)
        return TenantQuerySet(self.model, using=self._db).filter(tailnet=scope[DIMENSION])

    def all(self) -> models.QuerySet[M]:
        """Not a copy: rows that were prefetched would be read again."""
        queryset = self.get_queryset()
        return queryset.all() if isinstance(queryset, RefusingQuerySet) else queryset


class TenantModel(models.Model):
    """A row of one tailnet; every subclass has ``objects = TenantManager()`` (a test looks)."""

    tailnet: models.ForeignKey[Any, Any] = models.ForeignKey("accounts.Tailnet", on_delete=models.CASCADE)

    class Meta:
        abstract = True
