"""What the reference implementation sent in runs with fixed keys; JSON members as it marshals them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wire.keys import MachinePrivate, NodePublic

RECORDINGS: dict[str, Any] = json.loads(Path(__file__).with_name("recordings.json").read_text())
MACHINE = MachinePrivate.generate(bytes(range(32)))
SERVER = MachinePrivate.generate(bytes(range(32, 64)))
SERVER_EPHEMERAL = bytes(range(64, 96))
VERSION = 130
NODE_KEY = NodePublic(bytes([7]) * 32)
TXID = b"abcdefghijkl"


def recorded(name: str) -> bytes:
    """A recording that is bytes."""
    return bytes.fromhex(RECORDINGS[name])
