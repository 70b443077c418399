"""``trenza wait``: until the tunnel can be used, for what starts after it."""

from __future__ import annotations

import socket
import time

import click

from client.cli.common import Duration, daemon
from client.errors import ClientError, NotRunning
from client.localapi.client import LocalClient

PAUSE_SECONDS = 0.25


class NotUp(ClientError):
    """The time is over."""

    code = "not-up"


class _Deadline:
    """``seconds`` from now; 0 = never."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self, missing: str) -> float | None:
        """Seconds that are left, ``None`` = no end; raises :class:`NotUp` once they are over."""
        if not self._seconds:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise NotUp(f"not up after {self._seconds:g} s: {missing}")
        return left


@click.command()
@click.option("--timeout", type=Duration(), default=0.0, help="how long to wait (0: for ever)")
@click.pass_context
def wait(context: click.Context, timeout: float) -> None:
    """Wait until the daemon runs, is connected to the tailnet, and the interface has its addresses."""
    local, deadline = daemon(context), _Deadline(timeout)
    until_running(local, deadline)
    status = local.get("status", peers="false")
    while status["TUN"] and not all(map(is_bindable, status["TailscaleIPs"])):
        deadline.left("the interface has no address yet")
        time.sleep(PAUSE_SECONDS)


def until_running(local: LocalClient, deadline: _Deadline) -> None:
    missing = "trenzad is not running"
    while True:
        try:
            with local.watch() as notices:
                while (notice := notices.next(deadline.left(missing)))["State"] != "Running":
                    missing = f"the state is {notice['State']}"
                return
        except TimeoutError:
            deadline.left(missing)
        except NotRunning:
            deadline.left(missing)
            time.sleep(PAUSE_SECONDS)


def is_bindable(address: str) -> bool:
    """Whether a service could listen on an address now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
