"""Which of this host's addresses peers are told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from client.magicsock.endpoints import (
    MAX_ENDPOINTS,
    Endpoint,
    EndpointType,
    LocalAddress,
    format_address,
    own_endpoints,
    reachable_hosts,
    read_local_addresses,
)
from client.magicsock.netcheck import Report

PUBLIC, PUBLIC_6 = ("203.0.113.5", 4000), ("2001:db8::5", 4000)
LO = LocalAddress("127.0.0.1", "lo")


def hosts(*addresses: LocalAddress) -> list[str]:
    return reachable_hosts([LO, *addresses], tunnel="trenza0")


def test_addresses_of_every_interface_but_the_tunnel() -> None:
    tunnel = [LocalAddress("100.64.0.1", "trenza0"), LocalAddress("fd7a:115c:a1e0::1", "trenza0")]
    lan = [LocalAddress("192.168.1.2", "eth0"), LocalAddress("2001:db8::2", "eth0")]
    assert hosts(*tunnel, *lan) == ["192.168.1.2", "2001:db8::2"]


def test_another_tailnet_client_on_the_host_is_no_way_here() -> None:
    assert hosts(LocalAddress("fd7a:115c:a1e0::9", "tailscale0"), LocalAddress("10.0.0.2", "eth0")) == [
        "10.0.0.2"
    ]


def test_carrier_grade_nat_addresses_are_addresses() -> None:
    assert hosts(LocalAddress("100.70.1.2", "wwan0")) == ["100.70.1.2"]


@pytest.mark.parametrize(
    "useless",
    [
        LocalAddress("fe80::1", "eth0"),
        LocalAddress("10.0.0.9", "eth1", up=False),
        LocalAddress("2001:db8::9", "eth0", usable=False),
        LocalAddress("169.254.3.3", "eth0"),
    ],
)
def test_useless_addresses_are_left_out(useless: LocalAddress) -> None:
    assert hosts(LocalAddress("10.0.0.2", "eth0"), useless) == ["10.0.0.2"]


def test_link_local_and_loopback_only_when_there_is_nothing_better() -> None:
    assert hosts(LocalAddress("169.254.3.3", "eth0")) == ["169.254.3.3"]
    assert hosts() == ["127.0.0.1"]


def test_the_farthest_reaching_come_first() -> None:
    report = Report(global_v4=(PUBLIC,), global_v6=(PUBLIC_6,))
    found = own_endpoints(["192.168.1.2"], report, port=41641, static=[("198.51.100.7", 7)])
    assert found == (
        Endpoint(PUBLIC, EndpointType.STUN),
        Endpoint(PUBLIC_6, EndpointType.STUN),
        Endpoint(("198.51.100.7", 7), EndpointType.EXPLICIT),
        Endpoint(("192.168.1.2", 41641), EndpointType.LOCAL),
    )


def test_behind_a_hard_nat_our_own_port_may_be_forwarded() -> None:
    report = Report(global_v4=(PUBLIC,), mapping_varies_by_dest_ip=True)
    found = own_endpoints(["192.168.1.2"], report, port=41641)
    assert Endpoint(("203.0.113.5", 41641), EndpointType.STUN_LOCAL_PORT) in found


def test_each_address_is_named_once_by_its_best_reason() -> None:
    report = Report(global_v4=(("192.0.2.1", 41641),))
    assert own_endpoints(["192.0.2.1"], report, port=41641) == (
        Endpoint(("192.0.2.1", 41641), EndpointType.STUN),
    )


def test_loopback_is_named_only_alone() -> None:
    assert own_endpoints(["127.0.0.1"], Report(global_v4=(PUBLIC,)), port=1) == (
        Endpoint(PUBLIC, EndpointType.STUN),
    )
    assert own_endpoints(["127.0.0.1"], None, port=1) == (Endpoint(("127.0.0.1", 1), EndpointType.LOCAL),)


def test_there_are_never_too_many() -> None:
    many = [f"10.0.{number // 250}.{number % 250}" for number in range(500)]
    assert len(own_endpoints(many, None, port=1)) == MAX_ENDPOINTS


def test_text_forms() -> None:
    assert format_address(PUBLIC) == "203.0.113.5:4000"
    assert str(Endpoint(PUBLIC_6, EndpointType.STUN)) == "[2001:db8::5]:4000"


async def test_the_hosts_own_addresses_are_read() -> None:
    found = await read_local_addresses()
    assert LocalAddress("127.0.0.1", "lo", up=True, usable=True) in found


@pytest.mark.root
def test_flags_are_understood() -> None:
    """In a namespace with a good address, a deprecated one, and one of a link that is down."""
    script = """
ip link set lo up
ip link add d0 type veth peer name d1
ip link set d0 up
ip link set d1 up
ip addr add 2001:db8::1/64 dev d0 nodad
ip addr add 2001:db8::2/64 dev d0 nodad preferred_lft 0
ip link add down0 type veth peer name down1
ip addr add 10.9.9.9/24 dev down0
exec "$0" -c 'import asyncio
from client.magicsock.endpoints import *
print(reachable_hosts(asyncio.run(read_local_addresses()), tunnel="t"))'
"""
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", script, sys.executable], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "['2001:db8::1']", done.stderr
