"""Where a request comes from."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from controlplane.env import CHECKOUT
from controlplane.middleware import client_address


def test_header_of_an_untrusted_peer_is_ignored() -> None:
    assert client_address("203.0.113.9", "198.51.100.1", ()) == "203.0.113.9"
    assert client_address("203.0.113.9", "198.51.100.1", ("10.0.0.0/8",)) == "203.0.113.9"


def test_last_untrusted_hop_counts() -> None:
    trusted = ("10.0.0.0/8", "::1/128")
    assert client_address("10.0.0.1", "198.51.100.1", trusted) == "198.51.100.1"
    assert client_address("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.2.3.4", trusted) == "198.51.100.1"
    assert client_address("::1", "2001:db8::5", trusted) == "2001:db8::5"


def test_nonsense_hops_end_the_walk() -> None:
    assert client_address("10.0.0.1", "198.51.100.1, <script>", ("10.0.0.0/8",)) == "10.0.0.1"


@given(st.text(max_size=200), st.ip_addresses())
def test_the_answer_is_always_an_address(
    header: str, peer: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    answer = client_address(str(peer), header, ("0.0.0.0/0", "::/0"))
    ipaddress.ip_address(answer)


def test_one_function_alone_says_whose_a_request_is() -> None:
    """Another reading of the address would be counted, or shown, as another place."""
    code = (path for app in ("accounts", "nodes", "controlplane") for path in (CHECKOUT / app).rglob("*.py"))
    readers = {str(path.relative_to(CHECKOUT)) for path in code if '"REMOTE_ADDR"' in path.read_text()}
    assert readers == {"accounts/limits.py", "controlplane/middleware.py"}
