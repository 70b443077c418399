"""Lines that lose packets: paths become direct all the same, stay so, and lose no more than the lines do.

Chance alone makes two counts of lost packets differ: so many are sent, by tunnel and line at once, that it
amounts to less than what is asked for, and the difference is told with its standard error.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.lab.conftest import World
from tests.lab.net import RULES, Router
from tests.lab.processes import wait_for
from tests.lab.test_paths import introduce
from tests.lab.traffic import Counts, Ping
from tests.lab.trenza import TrenzaNode

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(1800)]

WORSE = {5: 1.0, 30: 2.0}  # percent lost each way → points by which a tunnel may deliver less than its line
CONVERGE_SECONDS = 30.0
MINUTES = 10
INTERVAL = 0.01
LOOK_SECONDS = 0.5
DIRECT = 0.95  # of the looks
MAX_FLAPS = 1  # to the relay and back
ERRORS = 3.0  # standard errors


@dataclass
class Line:
    """A router that loses, and a pair whose tunnel leads through it; ``seen`` are the endpoints in use."""

    percent: int
    router: Router
    near: TrenzaNode
    far: TrenzaNode
    seen: list[str] = field(default_factory=list)
    converged: float = 0.0  # seconds from the first packet to a direct path

    def lose(self) -> None:
        """Drop so much of everything that passes, each way."""
        rule = f"numgen random mod 100 < {self.percent} drop"
        self.router.namespace.rules(RULES.format(masquerade=self.router.nat.value, udp=rule))

    def look(self) -> None:
        self.seen.append(self.near.peer(self.far.name)["CurAddr"])

    @property
    def flaps(self) -> int:
        """How often the direct path was left."""
        return sum(bool(one) and one != other for one, other in itertools.pairwise(self.seen))

    @property
    def direct(self) -> float:
        return sum(map(bool, self.seen)) / len(self.seen)


@pytest.fixture
def lines(world: World) -> Iterator[list[Line]]:
    """One for each loss, side by side; nothing is lost yet."""
    made = []
    for percent in WORSE:
        router = world.lab.router(f"lossy{percent}")
        near, far = world.trenza(f"zoe{percent}", router), world.trenza(f"abe{percent}", world.easy2)
        world.join(near)
        world.join(far)
        introduce(near, far)
        made.append(Line(percent, router, near, far))
    yield made
    for line in made:
        line.router.block_udp(False)


def worse(tunnel: Counts, line: Counts) -> tuple[float, float]:
    """By how many points a tunnel delivered less than its line, and the standard error of that."""
    shares = [(counts.received / counts.sent, counts.sent) for counts in (tunnel, line)]
    error = math.sqrt(sum(share * (1 - share) / sent for share, sent in shares))
    return 100 * (shares[1][0] - shares[0][0]), 100 * error


def all_direct(lines: list[Line], began: float) -> bool:
    for line in lines:
        if not line.converged and line.near.peer(line.far.name)["CurAddr"]:
            line.converged = time.monotonic() - began
    return all(line.converged for line in lines)


def test_lossy_lines(world: World, lines: list[Line], capsys: pytest.CaptureFixture[str]) -> None:
    count, outside = int(MINUTES * 60 / INTERVAL), world.server.namespace.address4
    pings: list[tuple[Ping, Ping]] = []
    for line in lines:
        line.lose()
        targets = (line.far.address(), outside)  # of both, the packets cross the losing router twice
        pings.append(
            (
                Ping(line.near.namespace, targets[0], count=count, interval=INTERVAL),
                Ping(line.near.namespace, targets[1], count=count, interval=INTERVAL),
            )
        )
    began = time.monotonic()
    wait_for("all are direct", lambda: all_direct(lines, began), seconds=CONVERGE_SECONDS)
    ends = began + MINUTES * 60
    while time.monotonic() < ends:
        for line in lines:
            line.look()
        time.sleep(LOOK_SECONDS)
    for line, (inside, beside) in zip(lines, pings, strict=True):
        tunnel, alone = inside.result(), beside.result()
        less, error = worse(tunnel, alone)
        with capsys.disabled():
            print(
                f"\nF15, {line.percent} % each way, {MINUTES} min: tunnel {tunnel}, line {alone}: "
                f"{less:+.2f} points less (standard error {error:.2f}), direct after "
                f"{line.converged:.1f} s, then in {line.direct:.1%} of {len(line.seen)} looks, "
                f"{line.flaps} flaps"
            )
        assert line.direct >= DIRECT
        assert line.flaps <= MAX_FLAPS
        assert less <= WORSE[line.percent] + ERRORS * error
