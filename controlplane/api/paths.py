"""Which devices talk, by what, how fast, and why not directly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.validators import RegexValidator
from django.utils import timezone

from accounts.api.values import Choice, Closed, Flag, Number, Text
from accounts.api.views import ApiView, operation
from accounts.models import Tailnet
from controlplane.api.briefly import DeviceBrief, describe_briefly
from controlplane.services.ownrelays import shown_relays
from nodes.links import End, Kind, Link
from nodes.listing import MAX_SEARCH
from nodes.models import Node
from nodes.picture import MapQuery, load_picture
from wire.paths import WORDS, Reason

OWNER = r"\A([0-9]{1,18}|tagged|people)\Z"


class PathsQuery(Closed):
    """Which devices and paths are asked for."""

    q = Text(
        max_length=MAX_SEARCH, required=False, help_text="Devices by a part of their name, host or owner."
    )
    owner = Text(
        allow_blank=False,
        max_length=20,
        required=False,
        validators=[RegexValidator(OWNER, "is no person's id, and neither tagged nor people")],
        help_text="Devices of the person with this id; `tagged`, or `people` = of anybody.",
    )
    online = Choice(choices=["1"], required=False, help_text="`1` = devices that are connected.")
    path = Choice(choices=[kind.value for kind in Kind], required=False, help_text="Pairs so connected.")


class PathEnd(Closed):
    """How one device says it reaches the other."""

    nodeId = Text(help_text="Which of the two says it.")
    kind = Choice(choices=[kind.value for kind in Kind])
    endpoint = Text(required=False, help_text="Where it reaches the other directly.")
    regionId = Number(required=False, help_text="The relay region that carries its packets.")
    reason = Choice(
        choices=[reason.value for reason in Reason], required=False, help_text="Why not directly."
    )
    why = Text(required=False, help_text="The same in words.")


class RelayRegion(Closed):
    """A relay region."""

    regionId = Number()
    name = Text(help_text="Empty for one that the server has no more.")


class Path(Closed):
    """A pair of devices that talk, or of which one is the other's exit node."""

    devices = DeviceBrief(many=True, help_text="The two.")
    kind = Choice(choices=[kind.value for kind in Kind], help_text="By what they are connected.")
    oneWay = Flag(help_text="Whether one end's packets go directly and the other's by a relay.")
    latencyMs = Number(required=False, help_text="There and back; absent when nobody knows.")
    estimated = Flag(help_text="Whether the latency is reckoned from both ends' distances to the relay.")
    exitNodeId = Text(required=False, help_text="Which of the two is the exit node that the other uses.")
    relays = RelayRegion(many=True, help_text="The relay regions that carry the packets.")
    ends = PathEnd(many=True, help_text="What each end says; official clients say nothing.")


class Paths(Closed):
    """Pairs, and of how many devices they are."""

    devices = Number(help_text="How many devices were looked at.")
    total = Number(help_text="How many there are that fit.")
    paths = Path(many=True)


Regions = Mapping[int, str]


def describe_path(
    link: Link, nodes: Mapping[int, Node], regions: Regions, tailnet: Tailnet
) -> dict[str, Any]:
    """A Path."""
    described: dict[str, Any] = {
        "devices": [describe_briefly(nodes[pk], tailnet) for pk in link.pair],
        "kind": link.kind.value,
        "oneWay": link.one_way,
        "estimated": link.is_estimate,
        "relays": [{"regionId": one, "name": regions.get(one, "")} for one in link.regions],
        "ends": [_describe_end(end, nodes) for end in link.ends],
    }
    if link.latency_ms:
        described["latencyMs"] = link.latency_ms
    if link.exit_node:
        described["exitNodeId"] = nodes[link.exit_node].stable_id
    return described


def _describe_end(end: End, nodes: Mapping[int, Node]) -> dict[str, Any]:
    described: dict[str, Any] = {"nodeId": nodes[end.node].stable_id, "kind": end.kind.value}
    if end.endpoint:
        return described | {"endpoint": end.endpoint}
    if end.region:
        described["regionId"] = end.region
    if end.reason in WORDS:
        described |= {"reason": end.reason, "why": str(end.why)}
    return described


class PathsView(ApiView):
    """``/tailnet/{tailnet}/paths``"""

    @operation("listPaths", about="List paths", scope="devices:core:read", query=PathsQuery, answer=Paths)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """Of at most 250 devices, connected ones first: ask for fewer to see the paths of the others."""
        picture = load_picture(self.caller.membership, MapQuery.parse(query), timezone.now())
        tailnet = self.caller.tailnet
        regions = {relay.region_id: relay.region_name for relay in shown_relays(tailnet.pk)}
        return {
            "devices": len(picture.nodes),
            "total": picture.total,
            "paths": [describe_path(link, picture.nodes, regions, tailnet) for link in picture.links],
        }
