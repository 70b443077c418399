"""Being an exit node or a subnet router: which networks this node serves, and the kernel's leave to forward.

The packets themselves are the kernel's; who may send what where stands in :mod:`client.net.firewall`.
Source for what an exit node does not reach: tailscale ipn/ipnlocal/local.go (shrinkDefaultRoute).
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from client.errors import SetupError
from client.net.nft import list_nft
from client.net.spans import Span, merge, span_of, subtract
from client.prefixes import EXIT_ROUTES, TAILNET_RANGES, Network
from wire.netmap import Node

logger = logging.getLogger("trenzad.net")

SYSCTL = Path("/proc/sys/net")
FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}  # in SYSCTL, by IP version
# An exit node is a way to the internet, not into the networks it stands in, nor to what is nobody's.
NOT_INTERNET = (
    *TAILNET_RANGES,
    *(
        ipaddress.ip_network(text)
        for text in (
            *("0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
            *("224.0.0.0/4", "240.0.0.0/4", "::/127", "fc00::/7", "fe80::/10", "ff00::/8"),
        )
    ),
)


@dataclass(frozen=True)
class Gateway:
    """What this node serves: ``routes`` that are offered and approved; of them ``plain`` without masquerade.

    ``attached``: the host's own networks, which an exit node keeps to itself. ``forwards``: whether this host
    forwards at all, if only for its own containers.
    """

    routes: frozenset[Network] = frozenset()
    masquerade: bool = True
    attached: frozenset[Network] = frozenset()
    forwards: bool = False

    def spans(self, version: int) -> tuple[Span, ...]:
        """The destinations served, of one IP version."""
        return self._spans[version]

    def plain_spans(self, version: int) -> tuple[Span, ...]:
        """Those of them that see the tailnet's own addresses. The internet never does."""
        return () if self.masquerade else merge(map(span_of, self._subnets(version)))

    @cached_property
    def _spans(self) -> dict[int, tuple[Span, ...]]:
        return {version: self._served(version) for version in (4, 6)}

    def _served(self, version: int) -> tuple[Span, ...]:
        subnets = [span_of(route) for route in self._subnets(version)]
        exits = [span_of(route) for route in self.routes if route in EXIT_ROUTES and route.version == version]
        holes = [
            span_of(network) for network in (*NOT_INTERNET, *self.attached) if network.version == version
        ]
        return merge([*subnets, *subtract(exits, holes)])

    def _subnets(self, version: int) -> list[Network]:
        return [route for route in self.routes if route not in EXIT_ROUTES and route.version == version]


NO_GATEWAY = Gateway()


def gateway_of(
    node: Node, offered: Iterable[str], *, masquerade: bool, attached: Iterable[Network]
) -> Gateway:
    """What this node serves by what it offers and its own entry in the netmap says was approved. Pure."""
    approved = set(node.routed_prefixes)
    routes = frozenset(ipaddress.ip_network(text) for text in offered if text in approved)
    if not routes:
        return NO_GATEWAY
    kept = frozenset(attached) if routes & set(EXIT_ROUTES) else frozenset()
    return Gateway(routes, masquerade, kept)


# --- the kernel's leave ----------------------------------------------------------------------------------


def is_forwarding() -> bool:
    """Whether the kernel forwards packets of either version."""
    return any(_value(SYSCTL / path) not in ("", "0") for path in FORWARDING.values())


def allow_forwarding(versions: Iterable[int]) -> None:
    """Have the kernel forward packets; raises :class:`SetupError` saying what to do when we must not.

    It stays so: others on this host (containers) may have come to rely on it.
    """
    for version in sorted(versions):
        if version == 4:
            _set(SYSCTL / FORWARDING[4])
        elif (SYSCTL / "ipv6").exists():
            _keep_router_advertisements()
            _set(SYSCTL / FORWARDING[6])


async def dropping_chains(interface: str) -> list[str]:
    """Chains of others that drop forwarded packets unless told, and are not told of ``interface``.

    What one table drops no other can save. They are left to who made them (containers' tools, mostly).
    Raises :class:`SetupError`.
    """
    found = []
    for item in await list_nft("chains"):
        chain = item.get("chain", {})
        if chain.get("hook") != "forward" or chain.get("policy") != "drop":
            continue
        words = (chain["family"], chain["table"], chain["name"])
        if interface not in json.dumps(await list_nft("chain", *words)):
            found.append(" ".join(words))
    return found


def _keep_router_advertisements() -> None:
    """A host that forwards ignores routers' advertisements, and loses its default route, unless told."""
    for path in (SYSCTL / "ipv6/conf").glob("*/accept_ra"):
        try:
            if path.parent.name != "all" and path.read_text().strip() == "1":
                path.write_text("2")
        except OSError:
            continue  # an interface that has just gone, or a refusal that the next setting meets, too


def _value(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""  # a host without that version


def _set(path: Path) -> None:
    name = ".".join(path.relative_to(SYSCTL.parent).parts)
    try:
        if path.read_text().strip() == "0":
            path.write_text("1")
            logger.info("IP forwarding is on now (%s=1)", name)
    except OSError as error:
        raise SetupError(
            f"this host forwards no packets, and trenzad may not change it ({error.strerror}): "
            f"run sysctl -w {name}=1, and put {name}=1 into /etc/sysctl.d/99-trenza.conf"
        ) from error
