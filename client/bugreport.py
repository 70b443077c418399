"""A mark in the log, and around it what helps to find a fault: public facts only, no key, no traffic.

Source: tailscale ipn/localapi (serveBugReport).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from client.backend import Backend
from client.control.session import one_line
from client.hostinfo import program_version

logger = logging.getLogger("trenzad.bugreport")

RANDOM_BYTES = 8


def write_report(
    backend: Backend,
    status: Mapping[str, Any],
    note: str,
    *,
    diagnose: bool,
    entropy: Callable[[int], bytes] = os.urandom,
) -> str:
    """Log the marker and the facts; returns the marker. ``diagnose`` adds every peer's path."""
    who = str(status["Self"]["ID"]) or "none"
    marker = f"BUG-{who}-{backend.now():%Y%m%d%H%M%SZ}-{entropy(RANDOM_BYTES).hex()}"
    logger.info("user bugreport: %s", marker)
    for line in _lines(backend, status, note, diagnose=diagnose):
        logger.info("user bugreport %s", line)
    return marker


def _lines(backend: Backend, status: Mapping[str, Any], note: str, *, diagnose: bool) -> Iterator[str]:
    if note:
        yield f"note: {one_line(note)}"
    yield f"version: {program_version()}"
    yield f"hostinfo: {json.dumps(backend.hostinfo().to_json())}"
    yield f"health: {one_line('; '.join(backend.health())) or 'ok'}"
    yield f"state: {status['BackendState']}, control {json.dumps(status['Control'])}"
    own = status["Self"]
    yield f"node: stableid={own['ID']} key={own['PublicKey']} expiry={own.get('KeyExpiry', '')}"
    if diagnose:
        for key, peer in status["Peer"].items():
            yield f"peer {key}: {json.dumps({name: peer.get(name) for name in PEER_MEMBERS})}"


PEER_MEMBERS = (
    "ID",
    "Online",
    "Active",
    "CurAddr",
    "Relay",
    "RelayReason",
    "RxBytes",
    "TxBytes",
    "LastHandshake",
    "Addrs",
)
