"""Names in the lab: what the C library of a host finds, what others hear of it, and what is put back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.conftest import World
from tests.lab.nameserver import NameServer, address_of, look_up, resolv_conf, use_nameserver
from tests.lab.net import ETC_NETNS
from tests.lab.processes import wait_for
from tests.lab.trenza import TrenzaNode

pytestmark = pytest.mark.root

SUFFIX = "default.tailnet.internal"
OUTSIDE = "203.0.113.80"


@pytest.fixture(scope="module")
def provider(lasting_world: World) -> Iterator[NameServer]:
    """The resolver that hosts have from their network."""
    host = lasting_world.lab.host("provider")
    with NameServer(host, {"www.example.org": OUTSIDE}) as server:
        yield server


def node(world: World, provider: NameServer, *options: str) -> TrenzaNode:
    made = world.trenza(world.name(), world.easy1, start=False)
    use_nameserver(made.namespace, provider.namespace.address4)
    made.start()
    world.join(made, *options)
    return made


def is_ours(one: TrenzaNode) -> bool:
    return resolv_conf(one.namespace).startswith("# Written by trenzad")


def installed(one: TrenzaNode) -> None:
    wait_for(f"DNS of {one.name} is led to trenzad", lambda: is_ours(one))


def finds(one: TrenzaNode, name: str, address: str) -> None:
    wait_for(f"{one.name} finds {name}", lambda: address_of(one.namespace, name) == address)


def test_names_of_the_tailnet_and_of_the_world(world: World, provider: NameServer) -> None:
    first, second = node(world, provider), node(world, provider)
    installed(first)
    full = f"{second.name}.{SUFFIX}"
    finds(first, full, second.address())
    host = first.namespace
    assert address_of(host, second.name) == second.address()
    assert address_of(host, first.name) == first.address()
    assert look_up(host, second.address(), "hosts").split() == [second.address(), full]
    assert look_up(host, second.address(6), "hosts").split() == [second.address(6), full]
    assert address_of(host, f"nobody.{SUFFIX}") == ""
    assert address_of(host, "www.example.org") == OUTSIDE
    assert address_of(host, "no.example.org") == ""
    assert not any(name.endswith(("tailnet.internal", "arpa")) for name, _ in provider.asked)
    # The command line asks the same resolver.
    said = json.loads(first.cli("dns", "query", full, "--json").stdout)
    assert said["Answers"] == [{"Name": f"{full}.", "TTL": 5, "Type": "A", "Body": second.address()}]
    assert first.cli("dns", "query", f"nobody.{SUFFIX}", check=False).returncode == 1
    status = first.cli("dns", "status").stdout
    assert "used, through resolv.conf" in status
    assert f"{provider.namespace.address4} (as this host is set up)" in status


def test_nobody_else_can_ask(world: World, provider: NameServer) -> None:
    """The host's LAN does not reach the resolver, and it is the filter that keeps it out."""
    one, router = node(world, provider), world.easy1.namespace
    finds(one, one.name, one.address())
    router.run("ip", "route", "replace", "100.100.100.100/32", "via", one.namespace.address4)
    file = ETC_NETNS / router.name / "resolv.conf"
    file.write_text("nameserver 100.100.100.100\noptions timeout:1 attempts:1\n")
    try:
        assert address_of(router, f"{one.name}.{SUFFIX}") == ""
        one.namespace.run("nft", "delete", "table", "inet", "trenza")
        assert address_of(router, f"{one.name}.{SUFFIX}") == one.address()
    finally:
        router.run("ip", "route", "del", "100.100.100.100/32")
        file.write_text("")


def test_down_and_logout_put_everything_back(world: World, provider: NameServer) -> None:
    one = node(world, provider)
    before = f"nameserver {provider.namespace.address4}\noptions timeout:2\n"
    for end, begin in (("down", "up"), ("logout", "")):
        installed(one)
        one.cli(end)
        assert resolv_conf(one.namespace) == before
        assert address_of(one.namespace, "www.example.org") == OUTSIDE
        if begin:
            one.cli(begin, *one.up_options(world.server.url))
    world.join(one)
    installed(one)
    one.cli("set", "--accept-dns=false")
    wait_for("it is put back", lambda: resolv_conf(one.namespace) == before)
    assert one.cli("dns", "query", one.name + "." + SUFFIX).stdout  # its own resolver still answers
    one.cli("set", "--accept-dns=true")
    installed(one)
    one.stop()
    assert resolv_conf(one.namespace) == before


def test_after_a_kill_the_next_start_puts_things_right(world: World, provider: NameServer) -> None:
    one, other = node(world, provider), node(world, provider)
    before = f"nameserver {provider.namespace.address4}\noptions timeout:2\n"
    installed(one)
    one.daemon.kill()
    assert is_ours(one)
    one.start()  # with the network map of the last run
    finds(one, other.name, other.address())
    installed(one)
    one.daemon.kill()
    one.start()
    one.cli("down")
    assert resolv_conf(one.namespace) == before
    one.cli("up", *one.up_options(world.server.url))
    installed(one)
    one.daemon.kill()
    one.start()
    one.stop()
    assert resolv_conf(one.namespace) == before


def test_who_else_writes_the_file_is_heard_but_not_fought(world: World, provider: NameServer) -> None:
    one = node(world, provider)
    path = ETC_NETNS / one.namespace.name / "resolv.conf"
    for number in range(3):
        installed(one)
        path.write_text(f"nameserver {provider.namespace.address4}\nsearch net{number}.example\n")
    wait_for("it is set again", lambda: is_ours(one))
    assert "net2.example" in resolv_conf(one.namespace)
    path.write_text("nameserver 192.0.2.53\n")
    wait_for(
        "it gives way, and says so",
        lambda: any("another program keeps changing" in text for text in one.status()["Health"]),
    )
    assert not is_ours(one)
    one.cli("down")
    assert resolv_conf(one.namespace) == "nameserver 192.0.2.53\n"
