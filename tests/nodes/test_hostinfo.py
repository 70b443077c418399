"""What is taken of a client's report of itself: only what every other client can read."""

from __future__ import annotations

from nodes.hostinfo import MAX_ENDPOINTS, endpoints


def test_addresses_are_passed_on_in_canonical_form() -> None:
    assert endpoints(["192.0.2.1:41641", "[2001:DB8::0:1]:2", "192.0.2.1:41641"]) == (
        "192.0.2.1:41641",
        "[2001:db8::1]:2",
    )


def test_what_is_no_address_and_port_is_dropped() -> None:
    wrong = [
        *("", "x", "192.0.2.1", "192.0.2.1:", ":5", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:+5"),
        *("192.0.2.1:٣", "192.0.2.01:5", "host.example:5", "2001:db8::1:5", "[192.0.2.1]:5", "[::1]5"),
        *("[fe80::1%eth0]:5", "[::1", "192.0.2.1:5 ", "192.0.2.1:" + "9" * 5000),
    ]
    assert endpoints([*wrong, "192.0.2.1:5"]) == ("192.0.2.1:5",)


def test_addresses_are_bounded_in_number() -> None:
    assert len(endpoints(f"192.0.2.1:{port}" for port in range(1, 200))) == MAX_ENDPOINTS
