"""What this node counts, as text for Prometheus: traffic by path, peers, health.

Names are tailscaled's user metrics with our prefix. Source: tailscale wgengine/magicsock, util/usermetric.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from client.magicsock.results import PathStatus
from wire.netmap import NetMap

PREFIX = "trenzad_"
EXIT_ROUTES = frozenset({"0.0.0.0/0", "::/0"})
Labels = Mapping[str, str]
Sample = tuple[Labels, float]


@dataclass
class Growing:
    """A counter over others that begin anew at 0 when what they count is made anew."""

    total: int = 0
    _last: dict[object, int] = field(default_factory=dict)

    def see(self, readings: Mapping[object, int]) -> int:
        """Add what grew since the last look; what is no longer read keeps its share."""
        for name, value in readings.items():
            before = self._last.get(name, 0)
            self.total += value - before if value >= before else value
        self._last = dict(readings)
        return self.total


class Traffic:
    """Bytes to and from peers since the daemon's start: WireGuard counts all, magicsock what is relayed."""

    def __init__(self) -> None:
        self._all = {"inbound": Growing(), "outbound": Growing()}
        self._relayed = {"inbound": Growing(), "outbound": Growing()}

    def see(self, paths: Mapping[int, PathStatus], relayed: tuple[int, int]) -> None:
        self._all["inbound"].see({node_id: path.rx_bytes for node_id, path in paths.items()})
        self._all["outbound"].see({node_id: path.tx_bytes for node_id, path in paths.items()})
        self._relayed["inbound"].see({"relays": relayed[0]})
        self._relayed["outbound"].see({"relays": relayed[1]})

    def samples(self, direction: str) -> Iterator[Sample]:
        relayed = self._relayed[direction].total
        yield {"path": "direct"}, max(self._all[direction].total - relayed, 0)
        yield {"path": "derp"}, relayed


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is counted at one moment. ``home_region`` 0 = none."""

    connected: bool
    health: int
    home_region: int
    advertised: Iterable[str]
    netmap: NetMap | None
    paths: Mapping[int, PathStatus]


def metrics_text(traffic: Traffic, facts: Facts) -> str:
    """The text exposition format. Pure."""
    netmap = facts.netmap
    peers = list(netmap.peers.values()) if netmap else []
    active = [path for path in facts.paths.values() if path.active]
    approved = set(netmap.node.routed_prefixes) - set(netmap.node.addresses) if netmap else set()
    direct = sum(1 for path in active if path.current)
    metrics: list[tuple[str, str, str, Iterable[Sample]]] = [
        ("inbound_bytes_total", "counter", "Bytes received from peers", traffic.samples("inbound")),
        ("outbound_bytes_total", "counter", "Bytes sent to peers", traffic.samples("outbound")),
        ("peers", "gauge", "Peers in the network map", [({}, len(peers))]),
        ("peers_online", "gauge", "Peers that are online", [({}, sum(1 for peer in peers if peer.online))]),
        (
            "peers_active",
            "gauge",
            "Peers with sessions now",
            [({"path": "direct"}, direct), ({"path": "derp"}, len(active) - direct)],
        ),
        ("health_messages", "gauge", "Number of health messages", [({"type": "warning"}, facts.health)]),
        ("home_derp_region_id", "gauge", "ID of the home relay's region", [({}, facts.home_region)]),
        ("control_connected", "gauge", "Whether the server is connected", [({}, int(facts.connected))]),
        ("advertised_routes", "gauge", "Subnets that are offered", [({}, _subnets(facts.advertised))]),
        ("approved_routes", "gauge", "Subnets that are offered and approved", [({}, _subnets(approved))]),
    ]
    return "".join(_render(*metric) for metric in metrics)


def _subnets(routes: Iterable[str]) -> int:
    return len(set(routes) - EXIT_ROUTES)


def _render(name: str, kind: str, words: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {PREFIX}{name} {words}", f"# TYPE {PREFIX}{name} {kind}"]
    for labels, value in samples:
        shown = ",".join(f'{label}="{text}"' for label, text in labels.items())
        lines.append(f"{PREFIX}{name}{{{shown}}} {value}" if shown else f"{PREFIX}{name} {value}")
    return "\n".join(lines) + "\n"
