"""A line that loses packets: paths become direct all the same, stay so, and lose no more than it does."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from tests.lab.conftest import World
from tests.lab.net import RULES, Router
from tests.lab.test_paths import introduce
from tests.lab.traffic import Ping

pytestmark = [pytest.mark.root, pytest.mark.long]

CONVERGE_SECONDS = 30.0
COUNT, INTERVAL = 1500, 0.05
NOISE = 3.5  # percent: three standard deviations of what two such counts differ by chance
LOOKS, DIRECT_LOOKS = 100, 95
MAX_MOVES = 2  # one way and back, in the time that this takes


@pytest.fixture
def lossy(world: World) -> Iterator[Router]:
    """A router that can be told to lose; it is whole again afterwards."""
    yield world.easy1
    world.easy1.block_udp(False)


def lose(router: Router, percent: int) -> None:
    """Drop so much of everything that passes, each way."""
    rule = f"numgen random mod 100 < {percent} drop"
    router.namespace.rules(RULES.format(masquerade=router.nat.value, udp=rule))


@pytest.mark.parametrize(("percent", "worse"), [(5, 1.0), (30, 2.0)])
def test_a_lossy_line(world: World, lossy: Router, percent: int, worse: float) -> None:
    zoe, abe = world.trenza(f"zoe{percent}", lossy), world.trenza(f"abe{percent}", world.easy2)
    world.join(zoe)
    world.join(abe)
    introduce(zoe, abe)
    lose(lossy, percent)
    inside = Ping(zoe.namespace, abe.address(), count=COUNT, interval=INTERVAL)
    zoe.direct(abe.name, seconds=CONVERGE_SECONDS)
    outside = Ping(zoe.namespace, world.server.namespace.address4, count=COUNT, interval=INTERVAL)
    seen: list[str] = []
    for _ in range(LOOKS):
        seen.append(zoe.peer(abe.name)["CurAddr"])
        time.sleep(COUNT * INTERVAL / LOOKS / 2)
    tunnel, line = inside.result(), outside.result()
    moves = sum(one != other for one, other in itertools.pairwise(seen))
    print(f"{percent} %: tunnel {tunnel}, line {line}, direct {sum(map(bool, seen))}/{LOOKS}, {moves} moves")
    assert sum(map(bool, seen)) >= DIRECT_LOOKS
    assert moves <= MAX_MOVES
    assert 100 * tunnel.received / tunnel.sent >= 100 * line.received / line.sent - worse - NOISE
