"""Names in the lab: what the C library of a host finds, what others hear of it, and what is put back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from tests.lab.conftest import World
from tests.lab.nameserver import NameServer, address_of, look_up, resolv_conf, use_nameserver
from tests.lab.net import ETC_NETNS
from tests.lab.node import Node
from tests.lab.official import OfficialNode
from tests.lab.processes import wait_for
from tests.lab.trenza import TrenzaNode
from tests.needs import missing

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


def finds(one: Node, name: str, address: str) -> None:
    """Wait until the programs of a host, in the client's own view of it, find this (or nothing)."""
    private = one.private if isinstance(one, OfficialNode) else None
    what = f"{one.name} finds {address or 'no'} {name}"
    wait_for(what, lambda: address_of(one.namespace, name, private) == address)


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
        let_in = ("ip", "daddr", "100.100.100.100", "accept")
        one.namespace.run("nft", "insert", "rule", "inet", "trenza", "input", *let_in)
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


@pytest.mark.long
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


def test_what_the_panel_sets_reaches_every_client(world: World, provider: NameServer) -> None:
    """Split DNS by the longest suffix, records, and nameservers for all names, ours and official alike."""
    corp = world.lab.host("corp")
    one = node(world, provider)
    nodes: list[Node] = [one]
    if not missing("tailscaled"):
        nodes.append(official(world, provider))
    owner = world.server.person(world.desk)
    with NameServer(corp, {"wiki.corp.example": "10.1.2.3", "www.example.org": "203.0.113.99"}) as server:
        for kind, values in (
            ("nameserver", {"address": corp.address4, "domain": "corp.example"}),
            ("record", {"name": "printer", "value": "192.168.9.9"}),
            ("record", {"name": "named.example.net", "value": "192.168.9.10"}),
            ("search", {"domain": "corp.example"}),
        ):
            owner.fill_in(f"/dns/{kind}/add", **values)
        for client in nodes:
            finds(client, "wiki.corp.example", "10.1.2.3")
            finds(client, f"printer.{SUFFIX}", "192.168.9.9")
            finds(client, "named.example.net", "192.168.9.10")
            finds(client, "wiki", "10.1.2.3")
            finds(client, "nothing.corp.example", "")
        assert not provider.was_asked("wiki.corp.example")
        assert address_of(one.namespace, "www.example.org") == OUTSIDE
        owner.fill_in("/dns/nameserver/add", address=corp.address4)
        page = owner.open("/dns")
        owner.send(page, page.form("/dns/override"))
        for client in nodes:
            finds(client, "www.example.org", "203.0.113.99")
        provider.asked.clear()
        finds(one, "wiki.corp.example", "10.1.2.3")
        assert not provider.asked
        assert server.was_asked("www.example.org")
        for kind, values in (
            ("nameserver", {"address": corp.address4, "domain": "corp.example"}),
            ("nameserver", {"address": corp.address4, "domain": ""}),
            ("record", {"name": f"printer.{SUFFIX}", "value": "192.168.9.9"}),
            ("record", {"name": "named.example.net", "value": "192.168.9.10"}),
            ("search", {"domain": "corp.example"}),
        ):
            owner.fill_in(f"/dns/{kind}/remove?{urlencode(values)}")
        for client in nodes:
            finds(client, "www.example.org", OUTSIDE)
            finds(client, f"printer.{SUFFIX}", "")


def official(world: World, provider: NameServer) -> OfficialNode:
    made = world.official(world.name(), world.easy2, start=False)
    (made.private["/etc"] / "resolv.conf").write_text(f"nameserver {provider.namespace.address4}\n")
    made.start()
    world.join(made)
    return made
