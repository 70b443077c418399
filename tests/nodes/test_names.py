"""Names of nodes, and reading what hosts say of themselves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.hostinfo import MAX_BYTES, cleaned, field, merged, offered_routes, preferred_derp, request_tags
from nodes.names import dns_label, fqdn, free_name, is_label
from nodes.tags import invalid_tags

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
    max_leaves=20,
)
HOSTINFO = st.dictionaries(
    st.sampled_from(["Hostname", "hostname", "RoutableIPs", "RequestTags", "NetInfo", "x"]), JSON, max_size=5
)


@pytest.mark.parametrize(
    ("host", "label"),
    [
        ("laptop", "laptop"),
        ("Ana's MacBook Pro.local", "ana-s-macbook-pro"),
        ("Ñandú.lan", "nandu"),
        ("web.example.com", "web-example-com"),
        ("--", "device"),
        ("", "device"),
        ("日本", "device"),
        ("a" * 100, "a" * 63),
        ("a" * 62 + "-b", "a" * 62),
    ],
)
def test_a_host_name_becomes_a_label(host: str, label: str) -> None:
    assert dns_label(host) == label


@given(st.text(max_size=200))
def test_whatever_a_host_is_called_its_label_is_one(host: str) -> None:
    assert is_label(dns_label(host))


@given(st.text(alphabet="ab-", max_size=70), st.integers(0, 120))
def test_duplicates_get_numbers_and_stay_labels(host: str, count: int) -> None:
    taken: set[str] = set()
    for _ in range(count):
        name = free_name(dns_label(host), taken.__contains__)
        assert is_label(name)
        assert name not in taken
        taken.add(name)


def test_a_full_name_ends_with_a_dot() -> None:
    assert fqdn("box-1", "home", "tailnet.internal") == "box-1.home.tailnet.internal."


def test_tags_are_checked() -> None:
    assert invalid_tags(["tag:web", "tag:Web-1", "web", "tag:", "tag:1a", "tag:a b"]) == [
        "web",
        "tag:",
        "tag:1a",
        "tag:a b",
    ]


@given(HOSTINFO)
def test_no_hostinfo_breaks_its_readers(hostinfo: dict[str, Any]) -> None:
    kept = cleaned(hostinfo)
    assert all(isinstance(route, str) for route in offered_routes(kept))
    assert all(isinstance(tag, str) for tag in request_tags(kept))
    assert 0 <= preferred_derp(kept) <= 65535
    assert "\x00" not in str(kept)
    merged(kept, hostinfo)


def test_net_info_survives_a_message_without_it() -> None:
    old = {"Hostname": "a", "NetInfo": {"PreferredDERP": 900}}
    assert preferred_derp(merged(old, {"Hostname": "b"})) == 900
    assert preferred_derp(merged(old, {"netinfo": {"PreferredDERP": 901}})) == 901
    assert field(merged(old, {"Hostname": "b"}), "hostname") == "b"


def test_routes_are_canonical() -> None:
    assert offered_routes({"RoutableIPs": ["10.0.0.1/8", "10.0.0.0/8", "2001:DB8::1/64", 5, "x"]}) == [
        "10.0.0.0/8",
        "2001:db8::/64",
    ]


def test_a_large_hostinfo_keeps_what_is_read() -> None:
    big = {f"k{n}": "x" * 1000 for n in range(200)} | {"Hostname": "h", "NetInfo": {"PreferredDERP": 900}}
    assert cleaned(big) == {"Hostname": "h", "NetInfo": {"PreferredDERP": 900}}
    assert cleaned({"Hostname": "h", "RoutableIPs": ["x" * 1000] * (MAX_BYTES // 500)}) == {}
