"""Names as the resolver compares them: lower case, no trailing dot; and the zones of the tailnet's addresses.

Source: tailscale net/tsaddr, util/dnsname, ipn/ipnlocal (magicDNSRootDomains). Pure.
"""

from __future__ import annotations

import ipaddress

from client.prefixes import IPAddress

PORT = 53
MAX_NAME = 253
MAX_LABEL = 63
MAX_LABELS = 127
IP4_ZONE, IP6_ZONE = "in-addr.arpa", "ip6.arpa"
# 100.64.0.0/10 ends inside an octet, so it is 64 zones; fd7a:115c:a1e0::/48 is one.
REVERSE_ZONES = (
    *(f"{octet}.100.{IP4_ZONE}" for octet in range(64, 128)),
    f"0.e.1.a.c.5.1.1.a.7.d.f.{IP6_ZONE}",
)


def normal(text: str) -> str | None:
    """A name in the form of this package; ``None`` for what is none. The root is ``""``."""
    name = text.strip().rstrip(".").lower()
    if not name:
        return ""
    labels = name.split(".")
    fits = len(name) <= MAX_NAME and all(0 < len(label) <= MAX_LABEL for label in labels)
    return name if fits and name.isascii() and name.isprintable() and " " not in name else None


def ancestors(name: str) -> list[str]:
    """The name itself, then what it lies in, up to the root: ``a.b`` gives ``a.b``, ``b``, ``""``."""
    labels = name.split(".") if name else []
    return [".".join(labels[start:]) for start in range(len(labels))] + [""]


def reversed_address(name: str) -> IPAddress | None:
    """The address that a name of the reverse tree stands for; ``None`` for any other name."""
    try:
        if name.endswith(f".{IP4_ZONE}"):
            labels = name.removesuffix(f".{IP4_ZONE}").split(".")
            return ipaddress.IPv4Address(".".join(reversed(labels))) if len(labels) == 4 else None
        if name.endswith(f".{IP6_ZONE}"):
            digits = name.removesuffix(f".{IP6_ZONE}").split(".")
            if len(digits) != 32 or any(len(digit) != 1 for digit in digits):
                return None
            return ipaddress.IPv6Address(int("".join(reversed(digits)), 16))
    except ValueError:
        return None
    return None


def reverse_name(address: IPAddress) -> str:
    """The name in the reverse tree that stands for an address."""
    return address.reverse_pointer
