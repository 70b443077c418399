"""What a person who offers something should know at once: that somebody else has to approve it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from client.cli.common import say
from client.localapi.client import LocalClient
from client.routing import awaiting_words

OFFERS = ("advertise_exit_node", "advertise_routes")
WAIT_SECONDS = 2.0  # an offer that a policy approves by itself is approved long before
POLL_SECONDS = 0.1


def say_what_awaits_approval(local: LocalClient, named: Mapping[str, Any]) -> None:
    """After ``up`` or ``set`` with these options: a line on what is offered and not approved."""
    if not any(named.get(name) for name in OFFERS):
        return
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        status = local.get("status", peers="false")
        waiting = status["Self"].get("AwaitingApproval", ())
        if status["BackendState"] != "Running" or not waiting:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    say(
        f"Offered, but not approved yet: {awaiting_words(waiting)}.\n"
        f"To approve it, visit (as admin): {status['Control']['URL']}/admin",
        err=True,
    )
