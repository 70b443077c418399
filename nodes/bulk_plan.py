"""What a bulk action would do to the devices chosen: how many, which of them weigh most, which stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from accounts.models import Membership
from nodes.bulk_words import refused_words
from nodes.models import Node
from nodes.offers import offers_of
from nodes.selectors import is_online
from nodes.services.bulk import BulkAction, Refusal, refusal

MAX_NAMES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``ids`` in order; ``names`` are the first of them, ``more`` how many those leave out.

    ``carriers``: names of those through which others reach the internet or a subnet now.
    """

    ids: list[int]
    names: list[str]
    more: int
    online: int
    carriers: list[str]
    more_carriers: int
    refused: list[str]


def plan(action: BulkAction, nodes: Iterable[Node], *, membership: Membership, now: datetime) -> Plan:
    """By each device's state and the person's role; :func:`nodes.services.bulk.act_on_nodes` looks again."""
    refused: Counter[Refusal] = Counter()
    fit: list[Node] = []
    for node in nodes:
        why = refusal(action, node, membership)
        if why is None:
            fit.append(node)
        else:
            refused[why] += 1
    carriers = [node.name for node in fit if _carries(node)]
    return Plan(
        ids=[node.pk for node in fit],
        names=[node.name for node in fit[:MAX_NAMES]],
        more=max(0, len(fit) - MAX_NAMES),
        online=sum(is_online(node, now) for node in fit),
        carriers=carriers[:MAX_NAMES],
        more_carriers=max(0, len(carriers) - MAX_NAMES),
        refused=[refused_words(action, why, n) for why, n in sorted(refused.items())],
    )


def _carries(node: Node) -> bool:
    offers = offers_of(node)
    return offers.exit_approved or offers.subnets_approved > 0
