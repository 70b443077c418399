"""Which clients are older than the newest of their kind among the same devices."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

from django.db.models import Q, QuerySet

from nodes.models import Node

MAX_VERSIONS = 500  # distinct ones in a tailnet; more are not compared
NUMBERS = re.compile(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?")
Version = tuple[int, int, int]
Kind = tuple[str | None, str | None]  # app and system


def parse_version(text: str) -> Version | None:
    """``1.90.2-t1a2b3c4d5`` as numbers; ``None`` when it has none."""
    found = NUMBERS.match(text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def only_old(devices: QuerySet[Node]) -> QuerySet[Node]:
    """Those of the devices whose client is older than the newest of that client on that system among them.

    Systems are compared apart, because their clients are released apart.
    """
    kinds = _kinds(devices)
    old = {
        kind: {text for numbers, text in found if numbers < max(found)[0]} for kind, found in kinds.items()
    }
    return devices.filter(_any_of(kinds, old))


def of_kind(devices: QuerySet[Node], kind: Kind) -> QuerySet[Node]:
    """Those of the devices that have this client on this system."""
    app, system = kind
    return devices.filter(_is("app", app) & _is("os", system))


def newest(devices: QuerySet[Node]) -> dict[Kind, Version]:
    """The newest version of each client on each system among the devices."""
    return {kind: max(found)[0] for kind, found in _kinds(devices).items()}


def is_old(text: str | None, kind: Kind, among: Mapping[Kind, Version]) -> bool:
    """Whether a newer version of that client on that system is ``among`` those that :func:`newest` found."""
    numbers = parse_version(text or "")
    return numbers is not None and kind in among and numbers < among[kind]


def _kinds(devices: QuerySet[Node]) -> Mapping[Kind, list[tuple[Version, str]]]:
    """The versions of each client on each system, as numbers and as they are told."""
    bare = devices.order_by().prefetch_related(None).select_related(None)
    told = bare.values_list("reported_app", "reported_os", "reported_version")
    kinds: dict[Kind, list[tuple[Version, str]]] = defaultdict(list)
    for app, system, text in told.distinct()[:MAX_VERSIONS]:
        numbers = parse_version(text or "")
        if numbers is not None:
            kinds[app, system].append((numbers, text))
    return kinds


def _any_of(kinds: Mapping[Kind, list[tuple[Version, str]]], old: Mapping[Kind, set[str]]) -> Q:
    """Texts that are old wherever they occur are looked for as they are; others together with their kind."""
    newest = {text for kind, found in kinds.items() for _, text in found if text not in old[kind]}
    wanted = Q(reported_version__in=sorted(set().union(*old.values()) - newest))
    for (app, system), texts in old.items():
        if texts & newest:
            kind = _is("app", app) & _is("os", system)
            wanted |= kind & Q(reported_version__in=sorted(texts & newest))
    return wanted


def _is(name: str, value: str | None) -> Q:
    """By what clients report; ``None`` = they do not."""
    return Q(**{f"reported_{name}__isnull": True}) if value is None else Q(**{f"reported_{name}": value})
