"""Fills the first tailnet with devices whose keys go to a file: ``python -m bench.push.populate COUNT FILE``.

The file is a JSON list of ``[machine private, node private, disco public]`` in hex.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup(set_prefix=False)

from django.utils import timezone  # noqa: E402 - Django must be set up before its models

from accounts.credentials import new_stable_id  # noqa: E402
from accounts.models import Membership, Tailnet  # noqa: E402
from accounts.tenancy import scope  # noqa: E402
from nodes.models import Node  # noqa: E402
from wire.keys import DiscoPublic, MachinePrivate, NodePrivate  # noqa: E402

FIRST_ADDRESS = int(IPv4Address("100.64.0.1"))
HOSTINFO: dict[str, Any] = {
    "OS": "linux",
    "OSVersion": "6.1.0-18-amd64",
    "Distro": "debian",
    "IPNVersion": "1.90.2-t0123456789",
    "BackendLogID": "0" * 64,
    "Services": [{"Proto": "peerapi4", "Port": 41642}, {"Proto": "peerapi6", "Port": 41642}],
    "NetInfo": {
        "WorkingUDP": True,
        "WorkingIPv6": False,
        "PreferredDERP": 900,
        "DERPLatency": {"900-v4": 0.0123},
    },
}


def device(number: int, tailnet: Tailnet, owner: Any, keys: tuple[bytes, bytes, bytes]) -> Node:
    """A device as it is after it has joined and reported."""
    now = timezone.now()
    machine, node, disco = keys
    hostname = f"bench-{number:05d}"
    address = IPv4Address(FIRST_ADDRESS + number)
    return Node(
        tailnet=tailnet,
        stable_id=new_stable_id(),
        user=owner,
        machine_key=str(MachinePrivate(machine).public()),
        node_key=str(NodePrivate(node).public()),
        disco_key=str(DiscoPublic(disco)),
        state=Node.State.ACTIVE,
        approved_at=now,
        hostname=hostname,
        name=hostname,
        ipv4=str(address),
        ipv6=f"fd7a:115c:a1e0::{int(address) >> 16:x}:{int(address) & 0xFFFF:x}",
        key_expiry=now + timedelta(days=180),
        capability_version=130,
        hostinfo=HOSTINFO | {"Hostname": hostname},
        endpoints=[f"192.0.2.{number % 250 + 1}:41641", f"10.0.{number >> 8}.{number & 255}:41641"],
        home_derp=900,
        last_seen=now,
    )


def main(count: int, file: Path) -> None:
    tailnet = Tailnet.objects.get(name="default")
    keys = [
        (
            MachinePrivate.generate(secrets.token_bytes(32)).raw,
            NodePrivate.generate(secrets.token_bytes(32)).raw,
            secrets.token_bytes(32),
        )
        for _ in range(count)
    ]
    with scope(tailnet=tailnet):
        owner = Membership.objects.select_related("user").order_by("pk")[0].user
        rows = [device(number, tailnet, owner, keys[number]) for number in range(count)]
        Node.objects.bulk_create(rows, batch_size=100)
    file.write_text(json.dumps([[part.hex() for part in one] for one in keys]))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
