"""The server is dead for long, and meanwhile, at another server, everything else goes wrong at once.

One world for all of it: what takes minutes takes them side by side. Each test asks how one story ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from tests.lab.clocks import DAY, Clock
from tests.lab.conftest import World
from tests.lab.net import Namespace
from tests.lab.processes import wait_for
from tests.lab.server import Server
from tests.lab.test_paths import flows, introduce
from tests.lab.traffic import Iperf, Ping, ping, reachable, unreachable
from tests.lab.trenza import TrenzaNode

SHORT_SECONDS, LONG_SECONDS = 125, 15 * 60
RATE = 0.1  # seconds between pings
LOAD_MBIT = 2.0
MAX_LOST = 0.001
MAX_GAP = 1.0
BACK_SECONDS = 10.0
NOTICED_SECONDS, FREED_SECONDS = 45.0, 90.0
REKEY_SECONDS = 120
EXPIRES_AFTER = 70  # seconds; by then the server is dead
GRACE_SECONDS = 15.0  # a client gives a key ten seconds more, and looks every few

pytestmark = [pytest.mark.root, pytest.mark.needs("iperf3", "faketime"), pytest.mark.timeout(2400)]
DROP = """
table inet swallow {{
  chain in {{ type filter hook input priority -10; ip saddr {peer} drop; }}
  chain out {{ type filter hook output priority -10; ip daddr {peer} drop; }}
}}
"""


@dataclass
class Cast:
    """Two servers and their nodes, joined and talking; ``seconds`` is how long the first server is dead."""

    world: World
    second: Server
    second_clock: Clock
    seconds: int
    half: str  # the public address of the node whose server falls silent
    copys_host: Namespace
    nodes: dict[str, TrenzaNode] = field(default_factory=dict)
    clocks: dict[str, Clock] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, text: str) -> None:
        with self.lock:
            self.said.append(text)

    def __getitem__(self, name: str) -> TrenzaNode:
        return self.nodes[name]


def cast_of(world: World, second: Server, clock: Clock, seconds: int) -> Cast:
    """Make the nodes one after another, then start and join them all at once."""
    tag = "s" if seconds == SHORT_SECONDS else "l"
    half = world.lab.router(f"half{tag}")
    cast = Cast(world, second, clock, seconds, half.namespace.address4, world.easy2.host(f"copy{tag}"))
    first = {"ada": world.easy1, "ben": world.easy2, "cem": world.blocked, "dan": world.easy1}
    first |= {"fay": world.easy2, "gus": world.easy2}
    other = {"hal": half, "ivy": world.easy1, "jon": world.easy2}
    other |= {"kim": world.easy2, "max": world.easy1, "nia": world.easy2, "oto": world.easy1}
    for name, router in (first | other).items():
        environment = {}
        if name in ("gus", "max"):
            folder = world.lab.folder / f"clock-{name}{tag}"
            folder.mkdir()
            cast.clocks[name] = Clock.at(folder)
            environment = cast.clocks[name].environment
        cast.nodes[name] = world.trenza(f"{name}{tag}", router, start=False, **environment)
    key = second.auth_key("--preapproved", "--reusable")

    def join(name: str) -> None:
        node = cast[name].start()
        if name in first:
            world.join(node, *(["--shields-up"] if name == "fay" else []))
        else:
            node.up(second.url, auth_key=key)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(join, cast.nodes))
    for one, two in (("ada", "ben"), ("ivy", "jon"), ("max", "nia")):
        introduce(cast[one], cast[two])
        cast[one].ping(cast[two].name, "--until-direct", "-c", "20")
        cast[one].direct(cast[two].name)
        cast[two].direct(cast[one].name)
    introduce(cast["cem"], cast["dan"])
    reachable(cast["dan"].namespace, cast["cem"].address())
    return cast


# --- the stories -----------------------------------------------------------------------------------------


def absence(cast: Cast) -> None:
    """The server with all its parts but the relay is killed; tunnels, filters and expiry go on."""
    ada, ben, cem, dan, fay, gus = (cast[name] for name in ("ada", "ben", "cem", "dan", "fay", "gus"))
    server, relay = cast.world.server, cast.world.server.relay_pid()
    ends = datetime.now(UTC) + timedelta(seconds=EXPIRES_AFTER)
    server.alter("UPDATE nodes_node SET key_expiry = ? WHERE name = ?", ends, gus.name)
    wanted = ends.strftime("%Y-%m-%dT%H:%M:%S")
    wait_for("peers know when the key ends", lambda: ada.peer(gus.name)["KeyExpiry"].startswith(wanted))
    wait_for("it knows itself", lambda: gus.status()["Self"]["KeyExpiry"].startswith(wanted))
    reachable(ada.namespace, gus.address())
    cast.clocks["gus"].set(-DAY)  # a wrong clock does not give it another day
    count = int(cast.seconds / RATE)
    pings = {
        "direct": Ping(ada.namespace, ben.address(), count=count, interval=RATE),
        "relayed": Ping(dan.namespace, cem.address(), count=count, interval=RATE),
    }
    loads = {
        "direct": load(ben.namespace, ada, cast.seconds),
        "relayed": load(cem.namespace, dan, cast.seconds),
    }
    server.kill_web()
    keys_ended(cast, ends)
    handshakes = rekeys(ada, ben.name, cast.seconds - EXPIRES_AFTER - GRACE_SECONDS)
    for name, one in pings.items():
        counts = one.result()
        cast.say(f"F1 {name}: {counts} in {cast.seconds} s without a server")
        assert counts.lost <= MAX_LOST * counts.sent
    for name, one in loads.items():
        gap = one.result().gap
        cast.say(f"F1 {name}: iperf3 gap {gap:.1f} s")
        assert gap <= MAX_GAP
    cast.say(f"F1: {handshakes} handshakes of the direct pair seen")
    assert handshakes >= (cast.seconds - EXPIRES_AFTER - GRACE_SECONDS) // REKEY_SECONDS
    assert ping(ada.namespace, fay.address(), count=2).received == 0, "a filter has opened"
    assert not server.answers()
    assert server.relay_pid() == relay
    restarts(cast)
    server.start()
    assert server.relay_pid() == relay
    for node in (ada, ben, cem, dan, fay):
        node.wait_connected()
    flows(ada, ben)
    flows(cem, dan)


def load(source: Namespace, target: TrenzaNode, seconds: int) -> Iperf:
    return Iperf(source, target.namespace, target.address(), seconds=seconds, every=0.1, rate=LOAD_MBIT)


def keys_ended(cast: Cast, ends: datetime) -> None:
    """With no server to say so, both sides know that a key has ended, when it has, and not before."""
    ada, gus = cast["ada"], cast["gus"]
    address = gus.status()["TailscaleIPs"][0]
    time.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds() - 5))
    assert ping(ada.namespace, address).lost == 0
    assert gus.state == "Running"
    gus.wait_state("NeedsLogin", seconds=30)
    unreachable(ada.namespace, address, seconds=30)
    late = (datetime.now(UTC) - ends).total_seconds()
    cast.say(f"F1, F11: a key ended {late:.1f} s after its time, without a server, its clock a day behind")
    assert late > 0


def rekeys(node: TrenzaNode, peer: str, seconds: float) -> int:
    """How many different handshakes are seen in this time."""
    seen = {node.peer(peer)["LastHandshake"]}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(5)
        seen.add(node.peer(peer)["LastHandshake"])
    return len(seen)


def restarts(cast: Cast) -> None:
    """Both machines lose power; the server is still dead: they find each other by what they remember."""
    ada, ben = cast["ada"], cast["ben"]
    address = ben.address()
    took = []
    for _ in range(20 if cast.seconds == LONG_SECONDS else 2):
        for node in (ada, ben):
            node.namespace.kill_all()
        for node in (ada, ben):
            node.start()
        began = time.monotonic()
        reachable(ada.namespace, address, seconds=30)
        took.append(time.monotonic() - began)
    times = ", ".join(f"{one:.1f}" for one in took)
    cast.say(f"F2: tunnels back {times} s after restarts without a server")
    assert max(took) <= BACK_SECONDS


def half_open(cast: Cast) -> None:
    """A network swallows every packet between a client and its server, without a word."""
    hal, server = cast["hal"], cast.second
    wait_for("it is online", lambda: is_online(server, hal.name))
    server.namespace.run("nft", "-f", "-", stdin=DROP.format(peer=cast.half))
    began = time.monotonic()
    hal.wait_connected(connected=False)
    noticed = time.monotonic() - began
    wait_for("the server frees it", lambda: not is_online(server, hal.name), seconds=FREED_SECONDS + 30)
    freed = time.monotonic() - began
    server.namespace.run("nft", "delete", "table", "inet", "swallow")
    hal.wait_connected()
    cast.say(f"F12: the client noticed after {noticed:.0f} s, the server let go after {freed:.0f} s")
    assert noticed <= NOTICED_SECONDS
    assert freed <= FREED_SECONDS


def is_online(server: Server, name: str) -> bool:
    query = (
        "SELECT p.expires FROM nodes_presence p JOIN nodes_node n ON n.id = p.node_id "
        "WHERE n.name = ? AND p.expires IS NOT NULL"
    )
    return bool(server.look(query, name))


def suspension(cast: Cast) -> None:
    """A machine sleeps while a peer is revoked, which keeps its own WireGuard as it was, and cheats."""
    ivy, jon, server = cast["ivy"], cast["jon"], cast.second
    address, cheat = jon.address(), jon.daemon.pid
    owner = server.person(cast.world.desk)
    node_id = server.nodes()[jon.name]["nodeId"]
    asleep = [pid for pid in (ivy.daemon.pid, ivy.wireguard_pid()) if pid is not None]
    os.kill(cheat, signal.SIGSTOP)
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    owner.act(node_id, "delete")
    time.sleep(max(0.0, cast.seconds - 40 - (time.monotonic() - began)))
    slept = time.monotonic() - began
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    began = time.monotonic()
    attempts = Ping(ivy.namespace, address, count=150, interval=RATE)
    wait_for("it knows better", lambda: not ivy.knows(jon.name), seconds=60)
    correct = time.monotonic() - began
    ivy.wait_connected()
    early = attempts.result().received
    late = ping(ivy.namespace, address, count=10).received
    os.kill(cheat, signal.SIGCONT)
    cast.say(
        f"F16: right {correct:.1f} s after {slept:.0f} s of sleep; the revoked peer got {early} packets "
        f"of 150 sent from the moment of waking, {late} after that"
    )
    assert correct <= BACK_SECONDS
    assert early <= correct / RATE + 1
    assert late == 0


def wrong_clock(cast: Cast) -> None:
    """A client's clock is set back and forth: no tunnel cares, no key ends."""
    max_, nia, clock = cast["max"], cast["nia"], cast.clocks["max"]
    offsets = (600, -600, DAY, -DAY, 0)
    each = (cast.seconds - 25) / len(offsets)
    pings = Ping(nia.namespace, max_.address(), count=int(each * len(offsets) / RATE), interval=RATE)
    for offset in offsets:
        clock.set(offset)
        time.sleep(each - 2)
        assert max_.state == "Running"
        assert max_.knows(nia.name)
        health = " ".join(max_.status()["Health"])
        if abs(offset) != 600:  # ten minutes are where it begins to be said
            assert ("clock is not the server's" in health) is (offset != 0), f"{offset}: {health}"
    counts = pings.result()
    cast.say(f"F11: {counts} while a client's clock was 10 min and 24 h off, either way")
    assert counts.lost == 0
    assert max_.status()["Control"]["Connected"]


def schedule(cast: Cast) -> None:
    """A key that is older than the tailnet wants is replaced without anybody asking."""
    kim, server = cast["kim"], cast.second
    before = kim.status()["Self"]["PublicKey"]
    wait_for("its Hostinfo is kept", lambda: "trenza" in hostinfo(server, kim.name))
    old = datetime.now(UTC) - timedelta(days=91)
    server.alter("UPDATE nodes_node SET key_rotated_at = ? WHERE name = ?", old, kim.name)
    began = time.monotonic()
    wait_for("a new key", lambda: kim.status()["Self"]["PublicKey"] != before, seconds=100)
    cast.say(f"rotation by schedule: {time.monotonic() - began:.0f} s after the key was due")


def hostinfo(server: Server, name: str) -> str:
    return str(server.look("SELECT hostinfo FROM nodes_node WHERE name = ?", name)[0][0])


def copied(cast: Cast) -> None:
    """A copy of a machine comes and goes: flagged while it is there, cleared when it has gone."""
    oto, server = cast["oto"], cast.second
    copy = TrenzaNode(cast.copys_host)
    shutil.copytree(oto.state_folder, copy.state_folder)
    began = time.monotonic()
    copy.start()
    wait_for("it is flagged", lambda: is_cloned(server, oto.name), seconds=60)
    flagged = time.monotonic() - began
    copy.stop()
    began = time.monotonic()
    wait_for("it is cleared", lambda: not is_cloned(server, oto.name), seconds=100)
    cast.say(
        f"F18: flagged after {flagged:.0f} s, cleared {time.monotonic() - began:.0f} s after the copy went"
    )
    query = (
        "SELECT action FROM accounts_auditevent WHERE action LIKE 'CLONE%' AND target_name = ? ORDER BY id"
    )
    assert server.look(query, oto.name) == [("CLONE",), ("CLONE_ENDED",)]
    oto.wait_connected()
    wait_for("it says no more", lambda: not any("another machine" in text for text in oto.status()["Health"]))


def is_cloned(server: Server, name: str) -> bool:
    rows = server.look("SELECT cloned_at FROM nodes_node WHERE name = ?", name)
    return bool(rows and rows[0][0])


def wrong_server_clock(cast: Cast) -> None:
    """The server's clock is a day off, either way: tunnels, sessions and keys stay."""
    max_, nia = cast["max"], cast["nia"]
    pings = Ping(nia.namespace, max_.address(), count=300, interval=RATE)
    for offset in (DAY, -DAY):
        cast.second_clock.set(offset)
        time.sleep(14)
        assert {max_.state, nia.state} == {"Running"}
    cast.second_clock.set(0)
    counts = pings.result()
    cast.say(f"F11: {counts} while the server's clock was 24 h off, either way")
    assert counts.lost == 0
    for node in (max_, nia):
        node.wait_connected()
        assert node.state == "Running"


STORIES: tuple[Callable[[Cast], None], ...] = (
    absence,
    half_open,
    suspension,
    wrong_clock,
    schedule,
    copied,
)
LENGTHS = [
    pytest.param(SHORT_SECONDS, id="two-minutes"),
    pytest.param(LONG_SECONDS, id="a-quarter-of-an-hour", marks=pytest.mark.long),
]


@pytest.fixture(scope="module")
def second(lasting_world: World) -> Iterator[tuple[Server, Clock]]:
    """Another server, by a clock of its own."""
    host = lasting_world.lab.host("second")
    clock = Clock.at(host.folder)
    server = Server(host, **clock.environment).start()
    yield server, clock
    server.stop()


@pytest.fixture(scope="module", params=LENGTHS)
def told(
    request: pytest.FixtureRequest, lasting_world: World, second: tuple[Server, Clock]
) -> Iterator[tuple[Cast, dict[str, Future[None]]]]:
    """All stories, run side by side to their ends."""
    cast = cast_of(lasting_world, *second, request.param)
    try:
        with ThreadPoolExecutor(len(STORIES)) as pool:
            futures = {story.__name__: pool.submit(story, cast) for story in STORIES}
        futures["wrong_server_clock"] = done = Future()
        try:
            done.set_result(wrong_server_clock(cast))
        except Exception as error:
            done.set_exception(error)
        yield cast, futures
    finally:
        cast.copys_host.kill_all()
        lasting_world.clear()
        if not lasting_world.server.daemon.running:
            lasting_world.server.start()


@pytest.mark.parametrize("story", [*(story.__name__ for story in STORIES), "wrong_server_clock"])
def test_it_ends_well(
    told: tuple[Cast, dict[str, Future[None]]], story: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cast, futures = told
    with capsys.disabled():
        while cast.said:
            print(f"\n{cast.said.pop(0)}", end="")
    futures[story].result()
