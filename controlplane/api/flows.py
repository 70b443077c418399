"""A tailnet's network flow logs."""

from __future__ import annotations

from datetime import datetime

from django.http import HttpResponse

from accounts.api.fields import Moment
from accounts.api.values import Closed, Number, Text
from accounts.api.views import ApiView, operation
from accounts.downloads import streamed
from controlplane.services.flows import described, logged_between
from wire.flows import MAX_ADDRESS, MAX_COUNT, MAX_PROTOCOL


class NetworkFlowLogQuery(Closed):
    """From when to when, both included, by the server's clock."""

    start = Moment(help_text="The first moment; nothing is older than 30 days.")
    end = Moment(help_text="The last moment.")


class NetworkTraffic(Closed):
    """What passed between two ends, seen from the device that reported it."""

    proto = Number(min_value=0, max_value=MAX_PROTOCOL, help_text="The IP protocol's number; 0: not told.")
    src = Text(max_length=MAX_ADDRESS, help_text="The end on the device's side, as ip:port.")
    dst = Text(max_length=MAX_ADDRESS, help_text="The other end; 0.0.0.0:0 or [::]:0 where it is not told.")
    txPkts = Number(required=False, min_value=0, max_value=MAX_COUNT, help_text="Packets from src to dst.")
    txBytes = Number(required=False, min_value=0, max_value=MAX_COUNT)
    rxPkts = Number(required=False, min_value=0, max_value=MAX_COUNT, help_text="Packets from dst to src.")
    rxBytes = Number(required=False, min_value=0, max_value=MAX_COUNT)


class NetworkFlowLog(Closed):
    """Whom one device talked to in a minute or so."""

    logged = Moment(help_text="When the server was told.")
    nodeId = Text(help_text="The device that tells.")
    start = Moment(help_text="By the device's clock.")
    end = Moment()
    virtualTraffic = NetworkTraffic(many=True, required=False, help_text="Between devices of the tailnet.")
    subnetTraffic = NetworkTraffic(many=True, required=False, help_text="With networks behind routers.")
    exitTraffic = NetworkTraffic(many=True, required=False, help_text="Through exit nodes: not where to.")
    physicalTraffic = NetworkTraffic(
        many=True, required=False, help_text="How it was carried; src is a peer."
    )


class NetworkFlowLogs(Closed):
    """Oldest first."""

    logs = NetworkFlowLog(many=True)


class FlowLogsView(ApiView):
    """``/tailnet/{tailnet}/logging/network``"""

    @operation(
        "listNetworkFlowLogs",
        about="List network flow logs",
        scope="logs:network:read",
        query=NetworkFlowLogQuery,
        answer=NetworkFlowLogs,
    )
    def get(self, query: dict[str, datetime]) -> HttpResponse:
        logs = logged_between(query["start"], query["end"])
        pieces = described(logs, tailnet=self.caller.tailnet)
        return streamed(self.request._request, pieces, content_type="application/json")
