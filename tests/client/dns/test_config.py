"""What a netmap makes of the resolver: names, zones, whom to ask; with an exit node, too."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.dns.config import Config, Upstream, make_config, same_names
from client.dns.names import REVERSE_ZONES, ancestors, normal, reverse_name, reversed_address
from tests.client.fakes import netmap, node
from wire.netmap import DNSConfig, Resolver

MAGIC = DNSConfig(routes={"tail.example": ()}, domains=("tail.example",), proxied=True)
ip = ipaddress.ip_address


def config(*peers: Any, **options: Any) -> Config:
    dns = options.pop("dns", MAGIC)
    own = options.pop("own", None)
    return make_config(netmap(*peers, own=own, dns_config=dns), **options)


def resolvers(*texts: str, exit_node: bool = False) -> tuple[Resolver, ...]:
    return tuple(Resolver(address=text, use_with_exit_node=exit_node) for text in texts)


def names(upstreams: Any) -> list[str] | None:
    return None if upstreams is None else [str(one) for one in upstreams]


def test_peers_and_this_node_have_names() -> None:
    made = config(node(2))
    assert made.hosts["node2.tail.example"] == (ip("100.64.0.2"),)
    assert made.hosts["node1.tail.example"] == (ip("100.64.0.1"),)
    assert made.reverse[ip("fd7a:115c:a1e0::2")] == "node2.tail.example"


def test_ipv6_is_shown_where_there_is_nothing_else_or_it_is_wanted() -> None:
    only6 = node(2, addresses=("fd7a:115c:a1e0::2/128",))
    assert config(only6).hosts["node2.tail.example"] == (ip("fd7a:115c:a1e0::2"),)
    wanted = config(node(2), own=node(1, cap_map={"magicdns-aaaa": None}))
    assert wanted.hosts["node2.tail.example"] == (ip("100.64.0.2"), ip("fd7a:115c:a1e0::2"))
    six = config(node(2), own=node(1, addresses=("fd7a:115c:a1e0::1/128",)))
    assert six.hosts["node2.tail.example"] == (ip("fd7a:115c:a1e0::2"),)


def test_without_magic_dns_peers_have_no_names() -> None:
    made = config(node(2), dns=DNSConfig(routes={"corp.example": resolvers("10.0.0.1")}))
    assert not made.hosts
    assert made.match_domains == ("corp.example",)


def test_nothing_to_do_is_known() -> None:
    assert config(node(2), dns=DNSConfig()).is_empty


def test_the_longest_suffix_decides() -> None:
    routes = {
        "example.com": resolvers("10.0.0.1"),
        "b.example.com.": resolvers("10.0.0.2", "10.0.0.3:5353"),
        "local.b.example.com": (),
    }
    made = config(dns=DNSConfig(routes=routes, resolvers=resolvers("9.9.9.9")))
    assert names(made.upstreams("x.example.com")) == ["10.0.0.1"]
    assert names(made.upstreams("b.example.com")) == ["10.0.0.2", "10.0.0.3:5353"]
    assert made.upstreams("a.local.b.example.com") is None
    assert names(made.upstreams("anotherexample.com")) == ["9.9.9.9"]


def test_a_route_of_the_root_is_for_everything() -> None:
    made = config(dns=DNSConfig(routes={".": resolvers("10.0.0.1")}))
    assert made.takes_all
    assert names(made.upstreams("example.org")) == ["10.0.0.1"]


def test_the_hosts_resolvers_are_asked_for_the_rest_outside_the_tunnel() -> None:
    made = config(node(2)).with_base((Upstream("192.168.1.1"),))
    assert made.upstreams("example.org") == (Upstream("192.168.1.1", marked=True),)
    assert not made.takes_all


def test_a_host_without_resolvers_has_the_tailnets() -> None:
    made = config(dns=DNSConfig(proxied=True, fallback_resolvers=resolvers("9.9.9.9")))
    assert names(made.upstreams("example.org")) == ["9.9.9.9"]
    assert names(made.with_base((Upstream("192.168.1.1"),)).upstreams("example.org")) == ["192.168.1.1"]


def test_extra_records_are_hosts_and_are_asked_here() -> None:
    records = (
        {"Name": "grafana.example.org", "Type": "A", "Value": "100.64.0.9"},
        {"name": "Grafana.Example.org.", "value": "fd7a:115c:a1e0::9"},
        {"Name": "x.tail.example", "Value": "no address"},
        {"Name": "mail.example.org", "Type": "MX", "Value": "1.2.3.4"},
    )
    made = config(dns=DNSConfig(proxied=True, extra_records=records))
    assert made.hosts["grafana.example.org"] == (ip("100.64.0.9"), ip("fd7a:115c:a1e0::9"))
    assert "mail.example.org" not in made.hosts
    assert "grafana.example.org" in made.match_domains
    assert "node1.tail.example" not in made.match_domains


EXIT = node(
    7,
    hostinfo={
        "Services": [
            {"Proto": "peerapi4", "Port": 4242},
            {"Proto": "peerapi-dns-proxy", "Port": 1},
            {"Proto": 3, "Port": "x"},
        ]
    },
)
BASE = (Upstream("192.168.1.1"),)


def test_an_exit_node_is_asked_for_everything() -> None:
    dns = DNSConfig(
        proxied=True, resolvers=resolvers("9.9.9.9"), routes={"corp.example": resolvers("10.1.1.1")}
    )
    made = config(EXIT, dns=dns, hidden=True, exit_node=EXIT).with_base(BASE)
    assert names(made.upstreams("example.org")) == ["http://100.64.0.7:4242/dns-query"]
    assert names(made.upstreams("x.corp.example")) == ["http://100.64.0.7:4242/dns-query"]


def test_resolvers_for_use_with_an_exit_node_come_first() -> None:
    dns = DNSConfig(
        proxied=True,
        resolvers=(*resolvers("9.9.9.9"), *resolvers("10.2.2.2", exit_node=True)),
        routes={"corp.example": resolvers("10.1.1.1", exit_node=True)},
    )
    made = config(EXIT, dns=dns, hidden=True, exit_node=EXIT)
    assert names(made.upstreams("example.org")) == ["10.2.2.2"]
    assert names(made.upstreams("x.corp.example")) == ["10.1.1.1"]


@pytest.mark.parametrize("there", [None, node(7)])
def test_with_an_exit_node_the_hosts_resolvers_hear_nothing(there: Any) -> None:
    made = config(node(7), hidden=True, exit_node=there).with_base(BASE)
    assert made.takes_all
    assert made.upstreams("example.org") == ()
    fallback = DNSConfig(proxied=True, fallback_resolvers=resolvers("9.9.9.9"))
    made = config(node(7), dns=fallback, hidden=True, exit_node=there).with_base(BASE)
    assert made.upstreams("example.org") == (Upstream("9.9.9.9"),)


def test_but_for_the_names_that_the_tunnel_needs() -> None:
    made = config(EXIT, hidden=True, exit_node=EXIT, infrastructure=["Control.example.com"]).with_base(BASE)
    assert made.upstreams("control.example.com") == (Upstream("192.168.1.1", marked=True),)
    assert names(made.upstreams("www.control.example.com")) == ["http://100.64.0.7:4242/dns-query"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1.1.1.1", "1.1.1.1"),
        ("1.1.1.1:5353", "1.1.1.1:5353"),
        ("::1", "[::1]:53"),
        ("[::1]:54", "[::1]:54"),
        ("https://dns.example/q?x=1", "https://dns.example/q?x=1"),
        ("http://100.64.0.7:80/dns-query", "http://100.64.0.7:80/dns-query"),
    ],
)
def test_resolvers_are_read(text: str, shown: str) -> None:
    assert str(Upstream.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.example",
        "1.1.1.1:0",
        "1.1.1.1:99999",
        "1.1.1.1:٣",
        "[::1",
        "[::1]x",
        "fe80::1%eth0",
        "100.100.100.100",
        "http://1.1.1.1/dns-query",
        "ftp://x",
        "https://",
        "https://x:y/",
        "https://a b/",
        "fd7a:115c:a1e0::53",
    ],
)
def test_what_is_no_resolver_is_left_out(text: str) -> None:
    assert Upstream.parse(text) is None


@given(st.text(max_size=60) | st.text("0123456789.:[]htps/", max_size=30))
def test_no_text_breaks_the_reader(text: str) -> None:
    made = Upstream.parse(text)
    if made is not None and not made.url:
        assert Upstream.parse(str(made)) == made


def test_the_same_names_are_told_from_others() -> None:
    one = netmap(node(2), dns_config=MAGIC)
    assert same_names(one, netmap(node(2, endpoints=("192.0.2.1:1",)), dns_config=MAGIC))
    assert not same_names(one, netmap(node(2, name="other.tail.example."), dns_config=MAGIC))
    assert not same_names(one, netmap(node(2), node(3), dns_config=MAGIC))
    assert not same_names(one, netmap(node(2)))


# --- names -----------------------------------------------------------------------------------------------


def test_names_compare_without_case_and_dot() -> None:
    assert normal("Web.Example.COM.") == "web.example.com"
    assert normal(".") == ""
    for wrong in ("a..b", "x" * 64, "a b", "é.example", ".".join(["abc"] * 80)):
        assert normal(wrong) is None, wrong
    assert ancestors("a.b") == ["a.b", "b", ""]
    assert ancestors("") == [""]


@given(st.ip_addresses())
def test_reverse_names_round_trip(address: Any) -> None:
    assert reversed_address(reverse_name(address)) == address


@pytest.mark.parametrize(
    "name", ["1.2.in-addr.arpa", "x.1.2.3.in-addr.arpa", "999.1.1.1.in-addr.arpa", "1.ip6.arpa"]
)
def test_other_reverse_names_are_none(name: str) -> None:
    assert reversed_address(name) is None
    assert reversed_address(".".join(["zz"] * 32) + ".ip6.arpa") is None


def test_the_reverse_zones_are_the_tailnets() -> None:
    inside = [ip("100.64.0.1"), ip("100.127.255.255"), ip("fd7a:115c:a1e0::1")]
    outside = [ip("100.63.0.1"), ip("100.128.0.1"), ip("fd7a:115c:a1e1::1"), ip("10.0.0.1")]
    assert all(reverse_name(one).endswith(REVERSE_ZONES) for one in inside)
    assert not any(reverse_name(one).endswith(REVERSE_ZONES) for one in outside)
