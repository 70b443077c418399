"""What of a server's texts may become an address inside the tunnel."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.prefixes import in_tailnet, tailnet_addresses, tailnet_prefixes

HOSTILE = [
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/8",
    "100.64.0.1/8",
    "100.0.0.0/9",
    "nonsense",
    "",
    "100.64.0.1/32\nprivate_key=00",
    "fd7a:115c:a1e0::1%a\npublic_key=00",
    "fd7a:115c:a1e0::1%eth0/128",
]


@pytest.mark.parametrize(
    ("prefix", "inside"),
    [("100.64.0.0/10", True), ("100.64.0.0/9", False), ("fd7a:115c:a1e0::/48", True), ("fd7a::/16", False)],
)
def test_the_tailnets_ranges_are_known(prefix: str, inside: bool) -> None:
    assert in_tailnet(ipaddress.ip_network(prefix, strict=False)) is inside


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_prefix_of_the_tailnet_is_left_out(text: str) -> None:
    assert list(tailnet_prefixes([text])) == []
    assert [str(item) for item in tailnet_prefixes([text, "100.64.0.9/32"])] == ["100.64.0.9/32"]


def test_addresses_are_single_ones() -> None:
    texts = ["100.64.0.0/24", "100.64.0.7/32", "100.64.0.8", "fd7a:115c:a1e0::7/128"]
    assert [str(ip) for ip in tailnet_addresses(texts)] == ["100.64.0.7", "100.64.0.8", "fd7a:115c:a1e0::7"]


@given(st.text(max_size=60))
def test_whatever_comes_out_is_written_anew(text: str) -> None:
    for network in tailnet_prefixes([text]):
        assert set(str(network)) <= set("0123456789abcdef.:/")
