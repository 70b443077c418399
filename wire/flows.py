"""Who has talked to whom, as a node tells Trenza's server: ``POST /machine/trenza/flows``.

A node does so where its own CapMap has :data:`CAPABILITY`. The body is ``{"NodeKey": …, "Start": …, "End": …,
"VirtualTraffic": […], "SubnetTraffic": […], "ExitTraffic": […], "PhysicalTraffic": […]}``; a flow has the
members that Tailscale's flow logs have, ``{proto, src, dst, txPkts, txBytes, rxPkts, rxBytes}``, less counts
of 0. Source: tailscale types/netlogtype.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from wire.control import format_time, parse_time
from wire.errors import MessageError
from wire.fields import Fields, integer, lower_names, objects, string
from wire.keys import NodePublic

PATH = "/machine/trenza/flows"
CAPABILITY = "trenza/log-flows"
MAX_FLOWS = 2000  # of one report, all kinds together
MAX_PERIOD = timedelta(days=1)
MAX_ADDRESS = 60
MAX_PROTOCOL = 255
MAX_PORT = 65535
MAX_COUNT = 2**63 - 1
TAILNET_RANGES = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
UNSPECIFIED: dict[int, IPAddress] = {4: ipaddress.IPv4Address(0), 6: ipaddress.IPv6Address(0)}
KINDS = ("virtual", "subnet", "exit", "physical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What passed between two ends (``ip:port``) in a period, both ways.

    ``src`` is the end on the reporting node's side: ``tx`` went from there to ``dst``, ``rx`` came back.
    ``proto`` 0 and port 0 are for what has none, the unspecified address for an end that is not told.
    """

    proto: int = 0
    src: str
    dst: str
    tx_packets: int = 0
    tx_bytes: int = 0
    rx_packets: int = 0
    rx_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """The API's own members. Its clients need the first three, also where Tailscale leaves them out."""
        counts = {
            "txPkts": self.tx_packets,
            "txBytes": self.tx_bytes,
            "rxPkts": self.rx_packets,
            "rxBytes": self.rx_bytes,
        }
        told = {name: value for name, value in counts.items() if value}
        return {"proto": self.proto, "src": self.src, "dst": self.dst, **told}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Raises :class:`MessageError`."""
        f = lower_names(content)
        return cls(
            proto=_number(f, "proto", MAX_PROTOCOL),
            src=_end(f, "src"),
            dst=_end(f, "dst"),
            tx_packets=_number(f, "txpkts", MAX_COUNT),
            tx_bytes=_number(f, "txbytes", MAX_COUNT),
            rx_packets=_number(f, "rxpkts", MAX_COUNT),
            rx_bytes=_number(f, "rxbytes", MAX_COUNT),
        )


Flows = tuple[Flow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowReport:
    """A node's flows from ``start`` to ``end``, by where they led.

    ``virtual``: between nodes; ``subnet``: to or from a network behind a router; ``exit``: through an exit
    node; ``physical``: how WireGuard carried all of it (``src`` is the peer, ``dst`` where it was reached).
    """

    start: datetime
    end: datetime
    virtual: Flows = ()
    subnet: Flows = ()
    exit: Flows = ()
    physical: Flows = ()

    def traffic(self) -> dict[str, list[dict[str, Any]]]:
        """The API's members of it; a kind of which there is none is left out."""
        kinds = {kind: [flow.to_json() for flow in getattr(self, kind)] for kind in KINDS}
        return {f"{kind}Traffic": flows for kind, flows in kinds.items() if flows}


def report_json(node_key: NodePublic, report: FlowReport) -> dict[str, Any]:
    """The whole body."""
    traffic = {name[0].upper() + name[1:]: flows for name, flows in report.traffic().items()}
    times = {"Start": format_time(report.start), "End": format_time(report.end)}
    return {"NodeKey": str(node_key), **times, **traffic}


def parse_report(content: Mapping[str, Any]) -> FlowReport:
    """The body's report; raises :class:`MessageError`, also for more than :data:`MAX_FLOWS`.

    Of what went through an exit node only the tailnet's own addresses are read: where to nobody is to know.
    """
    f = lower_names(content)
    start, end = parse_time(string(f, "start")), parse_time(string(f, "end"))
    if start is None or end is None or not timedelta() <= end - start <= MAX_PERIOD:
        raise MessageError("Start and End must be a period of at most a day")
    found = {kind: tuple(map(Flow.from_json, objects(f, f"{kind}traffic", MAX_FLOWS))) for kind in KINDS}
    if sum(map(len, found.values())) > MAX_FLOWS:
        raise MessageError(f"a report has at most {MAX_FLOWS} flows")
    found["exit"] = without_destinations(found["exit"])
    return FlowReport(start=start, end=end, **found)


def without_destinations(flows: Flows) -> Flows:
    """Flows without protocols, ports, and addresses outside of the tailnet, added up. Pure."""
    summed: dict[tuple[str, str], list[int]] = {}
    for flow in flows:
        counts = summed.setdefault((_own(flow.src), _own(flow.dst)), [0, 0, 0, 0])
        for place, value in enumerate((flow.tx_packets, flow.tx_bytes, flow.rx_packets, flow.rx_bytes)):
            counts[place] = min(counts[place] + value, MAX_COUNT)
    return tuple(
        Flow(src=src, dst=dst, tx_packets=tp, tx_bytes=tb, rx_packets=rp, rx_bytes=rb)
        for (src, dst), (tp, tb, rp, rb) in summed.items()
    )


def format_end(address: IPAddress, port: int) -> str:
    """``ip:port``, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _own(end: str) -> str:
    """An end without its port; of one outside the tailnet's ranges only the IP version is left."""
    address = ipaddress.ip_address(end.rpartition(":")[0].strip("[]"))
    known = any(address.version == network.version and address in network for network in TAILNET_RANGES)
    return format_end(address if known else UNSPECIFIED[address.version], 0)


def _end(fields: Fields, name: str) -> str:
    host, _, port = string(fields, name, max_length=MAX_ADDRESS).rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise MessageError(f"{name} must be ip:port") from None
    known = port.isascii() and port.isdigit() and int(port) <= MAX_PORT
    if not known or "%" in host or bracketed != (address.version == 6):
        raise MessageError(f"{name} must be ip:port")
    return format_end(address, int(port))


def _number(fields: Fields, name: str, maximum: int) -> int:
    value = integer(fields, name)
    if not 0 <= value <= maximum:
        raise MessageError(f"{name} must be from 0 to {maximum}")
    return value
