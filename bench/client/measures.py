"""The measurements. Each gives its figures by contender; whoever is compared takes turns."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterable

from bench.client.contenders import Field, Pair, kinds, processor_seconds, resident_mib
from tests.lab.net import LabError, Namespace, Router
from tests.lab.node import Node
from tests.lab.processes import wait_for
from tests.lab.traffic import Iperf, reachable
from tests.lab.trenza import TrenzaNode

Figures = dict[str, float]

ROUND_TRIP = re.compile(r"time=([\d.]+) ms")
BOTTLENECK = ("rate", "20mbit", "burst", "16kb", "latency", "20ms")
LOAD_SECONDS = 12
RISE_SECONDS = 3  # until the load fills the bottleneck
SETTLE_SECONDS = 15.0
JOINED_SECONDS = 60.0
FIRST_PING_TRIES = 400
POLL_SECONDS = 0.01


def medians(turns: dict[str, list[float]]) -> Figures:
    return {name: statistics.median(values) for name, values in turns.items()}


def throughput(pairs: Iterable[Pair], *, rounds: int, seconds: int) -> Figures:
    """Mbit/s that arrive, over TCP, in turns."""
    turns: dict[str, list[float]] = {pair.kind: [] for pair in pairs}
    for _ in range(rounds):
        for pair in pairs:
            load = Iperf(pair.source, pair.target, pair.address, seconds=seconds)
            turns[pair.kind].append(load.result().received)
    return medians(turns)


def direct(field: Field, *, rounds: int, seconds: int) -> Figures:
    """Throughput of a direct path between hosts of one network, beside WireGuard alone."""
    pairs = [field.bare(), *(field.pair(kind) for kind in kinds())]
    for pair in pairs:
        for node, other in zip(pair.nodes, reversed(pair.nodes), strict=True):
            node.direct(other.name)
    try:
        return throughput(pairs, rounds=rounds, seconds=seconds)
    finally:
        _end(field, pairs)


def relayed(field: Field, blocked: Router, *, rounds: int, seconds: int) -> Figures:
    """Throughput through the relay: both without UDP."""
    pairs = [field.pair(kind, blocked, blocked) for kind in kinds()]
    try:
        for pair in pairs:
            _is_relayed(pair)
        return throughput(pairs, rounds=rounds, seconds=seconds)
    finally:
        _end(field, pairs)


def bottleneck(field: Field, blocked: Router) -> Figures:
    """Milliseconds that a full relayed path of 20 Mbit/s adds to a round trip."""
    found: Figures = {}
    for kind in kinds():
        pair = field.pair(kind, blocked, None)
        wan = ("dev", "wan", "root")
        blocked.namespace.run("tc", "qdisc", "add", *wan, "tbf", *BOTTLENECK)
        try:
            _is_relayed(pair)
            idle = round_trip(pair.source, pair.address, seconds=3)
            load = Iperf(pair.source, pair.target, pair.address, seconds=LOAD_SECONDS)
            time.sleep(RISE_SECONDS)
            busy = round_trip(pair.source, pair.address, seconds=LOAD_SECONDS - 2 * RISE_SECONDS)
            load.result()
            found[kind] = busy - idle
        finally:
            blocked.namespace.run("tc", "qdisc", "del", *wan, check=False)
            _end(field, [pair])
    return found


def round_trip(source: Namespace, address: str, *, seconds: int) -> float:
    """The median round trip in milliseconds."""
    done = source.run("ping", "-n", "-i", "0.1", "-c", str(10 * seconds), "-W", "3", address, check=False)
    times = [float(found) for found in ROUND_TRIP.findall(done.stdout)]
    if not times:
        raise LabError(f"{source.short} gets no answer from {address}")
    return statistics.median(times)


def memory(field: Field, *, peers: int) -> Figures:
    """Resident MiB of each daemon with that many peers; wireguard-go, where it runs, by itself."""
    found: Figures = {}
    for kind in kinds():
        node = _with_peers(field, kind, peers)
        time.sleep(SETTLE_SECONDS)
        found[kind] = resident_mib(node.daemon.pid)
        if isinstance(node, TrenzaNode) and (engine := node.wireguard_pid()):
            found["wireguard-go"] = resident_mib(engine)
        field.remove(node)
    return found


def idle(field: Field, *, peers: int, seconds: int) -> Figures:
    """Percent of a core that each daemon uses with nothing to do, all in the same minute."""
    nodes = {kind: _with_peers(field, kind, peers) for kind in kinds()}
    time.sleep(SETTLE_SECONDS)
    before = {kind: processor_seconds(node.daemon.pid) for kind, node in nodes.items()}
    began = time.monotonic()
    time.sleep(seconds)
    lasted = time.monotonic() - began
    found = {
        kind: 100 * (processor_seconds(node.daemon.pid) - before[kind]) / lasted
        for kind, node in nodes.items()
    }
    field.remove(*nodes.values())
    return found


def _with_peers(field: Field, kind: str, peers: int) -> Node:
    node = field.join(field.node(kind))
    wait_for(
        f"{node.name} knows {peers} peers",
        lambda: len(node.status().get("Peer") or {}) >= peers,
        seconds=JOINED_SECONDS,
    )
    return node


def joining(field: Field, routers: tuple[Router, Router], *, rounds: int) -> tuple[Figures, Figures]:
    """Seconds from ``up`` with a key to the first answered ping, and from being up to a direct path."""
    first: dict[str, list[float]] = {kind: [] for kind in kinds()}
    flip: dict[str, list[float]] = {kind: [] for kind in kinds()}
    witnesses = {kind: field.join(field.node(kind, routers[1])) for kind in kinds()}
    for _ in range(rounds):
        for kind, witness in witnesses.items():
            node = field.node(kind, routers[0])
            address = witness.address()
            began = time.monotonic()
            field.join(node)
            packet = time.monotonic()
            reachable(node.namespace, address)
            first[kind].append(time.monotonic() - began)
            flip[kind].append(_until_direct(node, witness, packet))
            field.remove(node)
    field.remove(*witnesses.values())
    return medians(first), medians(flip)


def refusal(field: Field, *, rounds: int) -> Figures:
    """Seconds until a second daemon of ours on the same state folder has ended with its refusal."""
    node = TrenzaNode(field.host()).start()
    turns: list[float] = []
    for _ in range(rounds):
        began = time.monotonic()
        done = node.daemon_refused()
        turns.append(time.monotonic() - began)
        if "another trenzad already runs" not in done.stderr:
            raise LabError(f"a second daemon was not refused: {done.stderr}")
    field.remove(node)
    return medians({"trenza": turns})


def _until_direct(node: Node, witness: Node, began: float) -> float:
    """Seconds until the path is direct, with a packet now and then to ask for it."""
    talk = node.namespace.spawn(
        "ping", "-n", "-q", "-i", "0.05", "-c", str(FIRST_PING_TRIES), witness.address(), stdout=-3
    )
    try:
        node.direct(witness.name)
        return time.monotonic() - began
    finally:
        talk.kill()
        talk.wait()


def _is_relayed(pair: Pair) -> None:
    node, other = pair.nodes
    if node.peer(other.name)["CurAddr"]:
        raise LabError(f"{pair.kind}: the path is direct, though UDP is blocked")


def _end(field: Field, pairs: Iterable[Pair]) -> None:
    for pair in pairs:
        for namespace in (pair.source, pair.target):
            field.lab.remove(namespace)
