"""Marks on what comes back to the daemon's own sockets, so that a strict rp_filter lets it in.

While all of this host's traffic is routed into the tunnel the kernel would look there for the way back to a
relay's or peer's address too, find that the packet came by another interface, and drop it. With
``src_valid_mark`` it looks with the packet's mark: answers get their connection's, WireGuard's port its own.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

from client.errors import SetupError
from client.net.marks import MARK, MARK_MASK
from client.net.nft import Expression, key_of, match, meta, payload, run_nft

logger = logging.getLogger("trenzad.net")

TABLE = {"family": "inet", "name": "trenza-marks"}
SETTINGS = Path("/proc/sys/net/ipv4/conf")
MANGLE = -150
REST = 0xFFFFFFFF ^ MARK_MASK
STRICT = "1"


def marks_ruleset(interface: str, port: int) -> dict[str, Any]:
    """libnftables JSON that replaces the table; ``port`` is WireGuard's, 0 = none yet. Pure."""
    outside = match(meta("iifname"), interface, "!=")
    body: list[Expression] = [
        {"add": {"table": TABLE}},
        {"delete": {"table": TABLE}},
        {"add": {"table": TABLE}},
        _chain("back", "prerouting"),
        _chain("out", "postrouting"),
        _rule("back", outside, _bears(key_of("ct", "mark")), _marked(meta("mark"))),
        _rule("out", _bears(meta("mark")), _marked(key_of("ct", "mark"))),
    ]
    if port:
        body.append(_rule("back", outside, match(payload("udp", "dport"), port), _marked(meta("mark"))))
    return {"nftables": body}


def _bears(key: Expression) -> Expression:
    return match({"&": [key, MARK_MASK]}, MARK)


def _marked(key: Expression) -> Expression:
    return {"mangle": {"key": key, "value": {"|": [{"&": [key, REST]}, MARK]}}}


def _chain(name: str, hook: str) -> Expression:
    chain = {"family": "inet", "table": TABLE["name"], "name": name}
    return {"add": {"chain": chain | {"type": "filter", "hook": hook, "prio": MANGLE, "policy": "accept"}}}


def _rule(chain: str, *expressions: Expression) -> Expression:
    return {
        "add": {"rule": {"family": "inet", "table": TABLE["name"], "chain": chain, "expr": list(expressions)}}
    }


class ReturnMarks:
    """The table, and the kernel's setting. This is set back only by who set it; left on it does no harm."""

    def __init__(self, interface: str) -> None:
        self.trouble = ""
        self._interface = interface
        self._port: int | None = None  # of the table in force; None = unknown, or none is
        self._set_by_us = False

    async def apply(self, port: int) -> None:
        """Raises :class:`SetupError`."""
        self.trouble = self._validate_marks()
        if port != self._port:
            await run_nft(marks_ruleset(self._interface, port))
            self._port = port

    async def remove(self) -> None:
        """Never raises: a table that is left marks what nobody looks at."""
        self.trouble, self._port = "", None
        if self._set_by_us:
            with contextlib.suppress(OSError):
                (SETTINGS / "all/src_valid_mark").write_text("0")
            self._set_by_us = False
        try:
            await run_nft({"nftables": [{"add": {"table": TABLE}}, {"delete": {"table": TABLE}}]})
        except SetupError as error:
            logger.info("%s", error)

    def _validate_marks(self) -> str:
        """Only a strict filter needs it; returns what is wrong where it cannot be set."""
        setting = SETTINGS / "all/src_valid_mark"
        try:
            if setting.read_text().strip() == "0":
                setting.write_text("1")
                self._set_by_us = True
        except OSError:
            if is_strict():
                return (
                    "rp_filter drops what comes back to trenzad itself, and trenzad may not change it: "
                    "run sysctl -w net.ipv4.conf.all.src_valid_mark=1"
                )
        return ""


def is_strict() -> bool:
    """Whether any interface drops packets whose way back is another interface."""
    for path in SETTINGS.glob("*/rp_filter"):
        with contextlib.suppress(OSError):
            if path.read_text().strip() == STRICT:
                return True
    return False
