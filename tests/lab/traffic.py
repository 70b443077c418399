"""Traffic through the tunnels, and what of it was lost."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from tests.lab.net import PATIENCE, LabError, Namespace
from tests.lab.processes import wait_for

COUNTS = re.compile(r"(\d+) packets transmitted, (\d+) received")
END_SECONDS = 30.0 * PATIENCE
IPERF_PORT = 5201


@dataclass(frozen=True)
class Counts:
    """Echo requests sent and answered."""

    sent: int
    received: int

    @property
    def lost(self) -> int:
        return self.sent - self.received

    def __str__(self) -> str:
        return f"{self.lost} of {self.sent} lost"


class Ping:
    """The system's ``ping`` through the tunnel, in the background: ``count`` requests, ``interval`` apart."""

    def __init__(self, source: Namespace, target: str, *, count: int, interval: float = 0.1) -> None:
        self.count, self.interval = count, interval
        # -q: nobody reads a line for each, and a pipe that is full would hold it up.
        options = ["-n", "-q", "-c", str(count), "-i", str(interval), "-W", "2"]
        self.process = source.spawn(
            "ping",
            *options,
            target,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def result(self) -> Counts:
        """Wait for the end."""
        try:
            text, _ = self.process.communicate(timeout=self.count * self.interval + END_SECONDS)
        except subprocess.TimeoutExpired:
            self.close()
            raise LabError("ping did not end") from None
        if not (found := COUNTS.search(text)):
            raise LabError(f"ping said: {text}")
        return Counts(int(found[1]), int(found[2]))

    def close(self) -> None:
        """End it early."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.communicate()


def ping(source: Namespace, target: str, *, count: int = 3, interval: float = 0.1) -> Counts:
    """Ping and wait for the answers."""
    return Ping(source, target, count=count, interval=interval).result()


def reachable(source: Namespace, target: str, *, seconds: float = 15.0) -> None:
    """Wait until one echo request is answered."""
    wait_for(
        f"{source.short} reaches {target}", lambda: ping(source, target, count=1).received, seconds=seconds
    )


def unreachable(source: Namespace, target: str, *, seconds: float = 15.0) -> None:
    """Wait until no echo request is answered any more."""

    def silent() -> bool:
        return (
            source.run("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", target, check=False).returncode != 0
        )

    wait_for(f"{source.short} no longer reaches {target}", silent, seconds=seconds)


class Iperf:
    """``iperf3`` over TCP from ``source`` to an address of ``target``, in the background.

    ``every``: seconds in one interval of the result; ``rate``: at most so many Mbit/s (0 = all there is).
    """

    def __init__(
        self,
        source: Namespace,
        target: Namespace,
        address: str,
        *,
        seconds: int,
        every: float = 1.0,
        rate: float = 0.0,
    ) -> None:
        self.seconds = seconds
        self.every = every
        self.server = target.spawn(
            "iperf3",
            "-s",
            "-1",
            "-B",
            address,
            "-p",
            str(IPERF_PORT),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        sockets = ["ss", "-Hltn", f"sport = :{IPERF_PORT}"]
        wait_for("iperf3 listens", lambda: target.run(*sockets).stdout != "")
        options = ["-c", address, "-p", str(IPERF_PORT), "-t", str(seconds), "-i", str(every), "-J"]
        options += ["-b", f"{rate}M"] if rate else []
        self._end = time.monotonic() + seconds
        self.client = source.spawn(
            "iperf3", *options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def seconds_left(self) -> float:
        """How long it still sends."""
        return self._end - time.monotonic()

    def result(self) -> IperfResult:
        """Wait for the end; :class:`LabError` when the connection broke."""
        try:
            text, _ = self.client.communicate(timeout=self.seconds + END_SECONDS)
            self.server.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise LabError("iperf3 did not end: the connection hangs") from None
        finally:
            self.close()
        value: dict[str, Any] = json.loads(text)
        if "error" in value:
            raise LabError(f"iperf3: {value['error']}")
        rates = [interval["sum"]["bits_per_second"] / 1e6 for interval in value["intervals"]]
        received = value["end"]["sum_received"]["bits_per_second"] / 1e6
        return IperfResult(tuple(rates), received, self.every)

    def close(self) -> None:
        for process in (self.client, self.server):
            if process.poll() is None:
                process.kill()
            process.communicate()


@dataclass(frozen=True)
class IperfResult:
    """Megabits per second: of each interval (``every`` seconds), and as received over all."""

    each: tuple[float, ...]
    received: float
    every: float = 1.0

    @property
    def stalled(self) -> int:
        """Intervals in which nothing was sent."""
        return sum(rate == 0 for rate in self.each)

    @property
    def gap(self) -> float:
        """The longest time without a byte, in seconds."""
        runs = "".join("." if rate == 0 else " " for rate in self.each).split()
        return max(map(len, runs), default=0) * self.every
