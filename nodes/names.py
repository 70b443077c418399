"""What a node is called: a DNS label made of its host name, ``-N`` for duplicates. Pure.

Source: tailscale util/dnsname/dnsname.go (SanitizeHostname).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from itertools import count

MAX_LABEL = 63
FALLBACK = "device"
LOCAL_SUFFIXES = (".local", ".localdomain", ".lan")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def is_label(text: str) -> bool:
    """Whether ``text`` is a lower-case DNS label."""
    return LABEL.fullmatch(text) is not None


def dns_label(hostname: str) -> str:
    """A DNS label for a host name, whatever it contains: accents go, other characters become hyphens."""
    text = hostname.strip().lower().rstrip(".")
    for suffix in LOCAL_SUFFIXES:
        text = text.removesuffix(suffix)
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    label = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:MAX_LABEL].strip("-")
    return label or FALLBACK


def free_name(label: str, is_taken: Callable[[str], bool]) -> str:
    """``label``, or ``label-1``, ``label-2``, …: the first that is not taken, never longer than a label."""
    if not is_taken(label):
        return label
    for number in count(1):
        suffix = f"-{number}"
        name = label[: MAX_LABEL - len(suffix)].rstrip("-") + suffix
        if not is_taken(name):
            return name
    raise AssertionError("count() does not end")


def short_name(text: str, tailnet: str, base_domain: str) -> str | None:
    """The label of a name that is short or of this tailnet; ``None`` for a name of elsewhere."""
    name = text.strip().lower().rstrip(".")
    label = name.removesuffix(f".{tailnet}.{base_domain}".lower())
    return None if "." in label else label


def fqdn(name: str, tailnet: str, base_domain: str) -> str:
    """A node's full name with the trailing dot that the wire wants."""
    return f"{name}.{tailnet}.{base_domain}."
