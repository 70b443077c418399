"""Stand-ins at the client's own interfaces: a host that is only remembered, paths that always answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from client.engine.fake import FakeEngine
from client.errors import ClientError, PeerNotFound
from client.flows.table import FlowTable, Reading
from client.magicsock.endpoints import Endpoint, EndpointType
from client.magicsock.netcheck import Report
from client.magicsock.sock import PathStatus, PingResult
from client.net.exitroutes import ExitRoutes, Wish
from client.net.firewall import Firewall
from client.net.forwarding import NO_GATEWAY, Gateway
from client.net.hold import Hold
from client.net.router import Layout, Router
from client.net.traffic import Traffic
from client.tunnel import Tunnel
from wire.control import NetInfo
from wire.keys import NodePrivate, NodePublic
from wire.netmap import FilterRule, NetMap, Node, PortRange

HOME_REGION = 900
ALLOW_ALL = FilterRule(sources=("*",), destinations=(PortRange(ip="*"),))


@dataclass
class Journal:
    """What happened to the host, in order."""

    steps: list[str] = field(default_factory=list)

    def note(self, step: str) -> None:
        self.steps.append(step)


class FakeFirewall(Firewall):
    def __init__(self, journal: Journal) -> None:
        super().__init__("trenza0")
        self.journal = journal
        self.shields_up = False
        self.gateway = NO_GATEWAY

    async def apply(self, netmap: NetMap, *, shields_up: bool, gateway: Gateway = NO_GATEWAY) -> None:
        self.journal.note("filter")
        self.gateway = gateway
        self.shields_up = shields_up

    async def remove(self) -> None:
        self.journal.note("no filter")


class FakeHold(Hold):
    def __init__(self, journal: Journal) -> None:
        super().__init__("trenza0")
        self.journal = journal

    async def close(self, seconds: float) -> None:
        self.journal.note("held")

    async def open(self) -> None:
        if "held" in self.journal.steps:
            self.journal.note("released")


class FakeFlowTable(FlowTable):
    """``readings``: what it is to have counted, one after the other."""

    def __init__(self) -> None:
        super().__init__("trenza0")
        self.readings: list[Reading] = []
        self.failure: ClientError | None = None
        self.opened = 0

    async def open(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.opened += 1
        self.is_open = True

    async def take(self) -> Reading:
        if self.failure is not None:
            raise self.failure
        return self.readings.pop(0) if self.readings else Reading()

    async def close(self) -> None:
        self.is_open = False


class FakeRouter(Router):
    def __init__(self, journal: Journal) -> None:
        super().__init__("trenza0")
        self.journal = journal
        self.layout: Layout | None = None
        self.failure: ClientError | None = None

    async def apply(self, wanted: Layout) -> None:
        if self.failure is not None:
            raise self.failure
        self.journal.note("link up" if self.layout is None else "routes")
        self.layout = wanted


class FakeExitRoutes(ExitRoutes):
    """``wish``: what is in force; ``None`` = nothing of it is left."""

    def __init__(self, journal: Journal) -> None:
        super().__init__("trenza0")
        self.journal = journal
        self.wish: Wish | None = None

    async def apply(self, wish: Wish, *, port: int = 0, add_only: bool = False) -> None:
        if wish.exit:
            self.journal.note("exit open" if wish.open else "exit closed")
        self.wish = wish

    async def remove(self) -> None:
        self.wish = None


class JournalEngine(FakeEngine):
    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal

    async def start(self) -> bool:
        self.journal.note("interface")
        return await super().start()

    async def close(self, *, keep: bool) -> None:
        self.journal.note("no interface")
        await super().close(keep=keep)


class FakeSock:
    """Every peer is reached directly, in 2 ms."""

    def __init__(self, journal: Journal, options: dict[str, Any]) -> None:
        self.journal = journal
        self.options = options
        self.netmap: NetMap | None = None
        self.node_key: NodePrivate = options["node_key"]
        self.connected: bool | None = None

    async def start(self) -> None:
        self.journal.note("paths")
        self.options["on_endpoints"]((Endpoint(("192.0.2.7", 41641), EndpointType.LOCAL),))
        self.options["on_net_info"](NetInfo(preferred_derp=HOME_REGION, working_udp=True))

    async def close(self) -> None:
        self.journal.note("no paths")

    async def set_netmap(self, netmap: NetMap) -> None:
        self.netmap = netmap

    async def set_node_key(self, key: NodePrivate) -> None:
        self.node_key = key

    def link_changed(self) -> None:
        self.journal.note("link changed")

    def set_connected(self, connected: bool) -> None:
        self.connected = connected

    behind_portal = False

    def set_control_url(self, url: str) -> None:
        self.control_url = url

    async def ping(self, node_id: int, timeout: float) -> PingResult:  # noqa: ASYNC109
        return PingResult(latency=0.002, endpoint=("192.0.2.8", 41641))

    def path_status(self, node_id: int) -> PathStatus:
        if self.netmap is None or node_id not in self.netmap.peers:
            raise PeerNotFound("no such peer")
        return PathStatus(current=("192.0.2.8", 41641), active=True, rx_bytes=20, tx_bytes=10)

    def live_paths(self) -> dict[int, PathStatus]:
        return {node_id: self.path_status(node_id) for node_id in (self.netmap.peers if self.netmap else ())}

    def relayed_bytes(self) -> tuple[int, int]:
        return 5, 3

    async def netcheck(self) -> Report:
        return Report(udp=True, ipv4=True, region_latency={HOME_REGION: 0.004}, preferred_derp=HOME_REGION)


async def no_chains(interface: str) -> list[str]:
    """No other firewall is in the way."""
    return []


class FakeHost:
    """One tunnel on a host of the memory; ``sock`` is the newest."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.engine = JournalEngine(self.journal)
        self.firewall = FakeFirewall(self.journal)
        self.router = FakeRouter(self.journal)
        self.exits = FakeExitRoutes(self.journal)
        self.flows = FakeFlowTable()
        self.forwarded: set[int] = set()  # IP versions
        self.sock: FakeSock | None = None

    def make_sock(self, **options: Any) -> FakeSock:
        self.sock = FakeSock(self.journal, options)
        return self.sock

    def make_tunnel(self, on_endpoints: Any, on_net_info: Any) -> Tunnel:
        return Tunnel(
            engine=self.engine,
            on_endpoints=on_endpoints,
            on_net_info=on_net_info,
            make_sock=self.make_sock,
            firewall=self.firewall,
            router=self.router,
            hold=FakeHold(self.journal),
            flows=self.flows,
            traffic=Traffic("trenza0", self.exits, self.forwarded.update, no_chains),
        )


def key(seed: int) -> NodePrivate:
    return NodePrivate.generate(bytes([seed]) * 32)


def node(node_id: int, *, name: str = "", public: NodePublic | None = None, **members: Any) -> Node:
    values: dict[str, Any] = {
        "addresses": (f"100.64.0.{node_id}/32", f"fd7a:115c:a1e0::{node_id:x}/128"),
        "machine_authorized": True,
    } | members
    return Node(
        id=node_id,
        stable_id=f"n{node_id}",
        name=name or f"node{node_id}.tail.example.",
        key=public or key(node_id).public(),
        **values,
    )


def netmap(*peers: Node, own: Node | None = None, **members: Any) -> NetMap:
    values = {"packet_filters": {"base": (ALLOW_ALL,)}, "domain": "tail.example"} | members
    return NetMap(node=own or node(1), peers={peer.id: peer for peer in peers}, **values)
