"""Nothing passes the tunnel for some seconds: a table of its own, which the kernel opens again by itself.

The element that closes it runs out, also when this daemon is killed meanwhile.
"""

from __future__ import annotations

import math
from typing import Any

from client.net.nft import DROP, Expression, Load, match, meta, run_nft

TABLE = {"family": "inet", "name": "trenza-held"}
HELD = "held"
WAYS = (("input", "iifname"), ("output", "oifname"), ("forward", "iifname"), ("forward", "oifname"))
PRIORITY = -6  # before the filter (client.net.firewall)
REMOVED = [{"add": {"table": TABLE}}, {"delete": {"table": TABLE}}]


def ruleset(interface: str, seconds: float) -> dict[str, Any]:
    """What holds for so long; nft counts whole seconds."""
    of_table = {"family": TABLE["family"], "table": TABLE["name"]}
    held: Expression = {"elem": {"val": interface, "timeout": math.ceil(seconds)}}
    chains = [
        of_table | {"name": hook, "type": "filter", "hook": hook, "prio": PRIORITY, "policy": "accept"}
        for hook in dict.fromkeys(hook for hook, _ in WAYS)
    ]
    rules = [of_table | {"chain": hook, "expr": [match(meta(side), f"@{HELD}"), DROP]} for hook, side in WAYS]
    return {
        "nftables": [
            *REMOVED,
            {"add": {"table": TABLE}},
            {"add": {"set": of_table | {"name": HELD, "type": "ifname", "flags": ["timeout"]}}},
            {"add": {"element": of_table | {"name": HELD, "elem": [held]}}},
            *({"add": {"chain": chain}} for chain in chains),
            *({"add": {"rule": rule}} for rule in rules),
        ]
    }


class Hold:
    """Of one interface; ``load`` as for the filter."""

    def __init__(self, interface: str, *, load: Load = run_nft) -> None:
        self._interface = interface
        self._load = load

    async def close(self, seconds: float) -> None:
        """For so long, unless it is opened before. Raises :class:`SetupError`."""
        await self._load(ruleset(self._interface, seconds))

    async def open(self) -> None:
        """Raises :class:`SetupError`; nothing to open is no error."""
        await self._load({"nftables": REMOVED})
