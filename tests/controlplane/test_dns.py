"""DNS settings: what may be written, who may, what devices are told, and the page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.utils import timezone

from accounts.actors import Actor
from accounts.errors import Conflict, Forbidden, Invalid
from accounts.models import AuditEvent, Tailnet, User
from accounts.roles import Role
from accounts.tenancy import scope
from controlplane import snapshots
from controlplane.models import DNSSettings
from controlplane.netmap.builder import dns_config
from controlplane.netmap.engine import Engine
from controlplane.services import dns
from tests.accounts import factories
from tests.nodes import factories as nodes
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
ME = Actor.command()


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


@pytest.fixture
def tailnet(place: tuple[Tailnet, User]) -> Tailnet:
    return place[0]


def told(tailnet: Tailnet) -> dict[str, Any]:
    """The DNSConfig that devices of the tailnet get."""
    snapshot = snapshots.load_tailnet(tailnet.pk)
    assert snapshot is not None
    return dns_config(snapshot)


def settings(tailnet: Tailnet) -> DNSSettings:
    with scope(tailnet=tailnet):
        return dns.dns_settings(tailnet)


# --- what is written ---------------------------------------------------------------------------------------


def test_devices_have_names_before_anybody_sets_anything(tailnet: Tailnet) -> None:
    suffix = dns.suffix_of(tailnet)
    assert told(tailnet) == {"Routes": {suffix: []}, "Domains": [suffix], "Proxied": True}


def test_all_of_it_reaches_devices_in_wire_form(tailnet: Tailnet) -> None:
    dns.add_nameserver(tailnet=tailnet, by=ME, address=" 9.9.9.9 ")
    dns.add_nameserver(tailnet=tailnet, by=ME, address="2620:FE::fe", use_with_exit_node=True)
    dns.add_nameserver(tailnet=tailnet, by=ME, address="10.0.0.1:5353", domain="Corp.Example.com.")
    dns.add_search_domain(tailnet=tailnet, by=ME, domain="corp.example.com")
    dns.add_record(tailnet=tailnet, by=ME, name="printer", value="192.168.1.20")
    dns.add_record(tailnet=tailnet, by=ME, name="wiki.example.org", value="fd7a:115c:a1e0::7")
    suffix, servers = (
        dns.suffix_of(tailnet),
        [
            {"Addr": "9.9.9.9"},
            {"Addr": "2620:fe::fe", "UseWithExitNode": True},
        ],
    )
    expected = {
        "Routes": {"corp.example.com": [{"Addr": "10.0.0.1:5353"}], suffix: []},
        "Domains": [suffix, "corp.example.com"],
        "Proxied": True,
        "FallbackResolvers": servers,
        "ExtraRecords": [
            {"Name": f"printer.{suffix}", "Type": "A", "Value": "192.168.1.20"},
            {"Name": "wiki.example.org", "Type": "AAAA", "Value": "fd7a:115c:a1e0::7"},
        ],
    }
    assert told(tailnet) == expected
    dns.set_override(tailnet=tailnet, by=ME, on=True)
    assert told(tailnet)["Resolvers"] == servers
    dns.set_magic_dns(tailnet=tailnet, by=ME, on=False)
    off = told(tailnet)
    assert (off["Proxied"], off["Domains"]) == (False, ["corp.example.com"])
    assert suffix not in off["Routes"]
    assert "null" not in json.dumps(off)


def test_what_is_removed_is_gone(tailnet: Tailnet) -> None:
    for address in ("9.9.9.9", "1.1.1.1"):
        dns.add_nameserver(tailnet=tailnet, by=ME, address=address)
        dns.add_nameserver(tailnet=tailnet, by=ME, address=address, domain="a.example")
    dns.set_override(tailnet=tailnet, by=ME, on=True)
    dns.remove_nameserver(tailnet=tailnet, by=ME, address="9.9.9.9", domain="a.example")
    assert settings(tailnet).split_dns == {"a.example": [{"address": "1.1.1.1"}]}
    dns.remove_nameserver(tailnet=tailnet, by=ME, address="1.1.1.1", domain="a.example")
    for address in ("9.9.9.9", "1.1.1.1"):
        assert settings(tailnet).override_local_dns
        dns.remove_nameserver(tailnet=tailnet, by=ME, address=address)
    row = settings(tailnet)
    assert (row.split_dns, row.nameservers, row.override_local_dns) == ({}, [], False)
    dns.add_record(tailnet=tailnet, by=ME, name="a.example", value="10.0.0.1")
    dns.add_record(tailnet=tailnet, by=ME, name="a.example", value="10.0.0.2")
    dns.remove_record(tailnet=tailnet, by=ME, name="a.example", value="10.0.0.1")
    assert [one["Value"] for one in settings(tailnet).extra_records] == ["10.0.0.2"]


def test_a_known_nameserver_takes_the_new_option_where_it_is(tailnet: Tailnet) -> None:
    for address in ("9.9.9.9", "1.1.1.1"):
        dns.add_nameserver(tailnet=tailnet, by=ME, address=address)
    dns.add_nameserver(tailnet=tailnet, by=ME, address="9.9.9.9", use_with_exit_node=True)
    assert settings(tailnet).nameservers == [
        {"address": "9.9.9.9", "useWithExitNode": True},
        {"address": "1.1.1.1"},
    ]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("1.1.1.1", "1.1.1.1"),
        ("1.1.1.1:53", "1.1.1.1"),
        ("[2620:fe::FE]:5353", "[2620:fe::fe]:5353"),
        ("2620:fe:0::fe", "2620:fe::fe"),
        ("100.64.0.7", "100.64.0.7"),
        ("https://dns.example.com/q?a=b", "https://dns.example.com/q?a=b"),
    ],
)
def test_addresses_have_one_form(given: str, kept: str) -> None:
    assert dns.nameserver_address(given) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.example.com",
        "1.1.1",
        "1.1.1.1:0",
        "1.1.1.1:x",
        "[::1",
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "224.0.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "100.100.100.100",
        "fd7a:115c:a1e0::53",
        "http://x",
        "https://",
        "https://u@x/",
        "https://x:0/",
        'https://x/"',
        "https://[",
        "https://a b",
        "https://x/" + "y" * 600,
    ],
)
def test_what_is_no_nameserver_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        dns.nameserver_address(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", "-a.b", "a b.c", "http://a.b", "x" * 64, "é.example", "a." * 130]
)
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        dns.domain_name(text)


def test_bounds(tailnet: Tailnet, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_NAMESERVERS", "MAX_DOMAINS", "MAX_SEARCH_DOMAINS", "MAX_RECORDS"):
        monkeypatch.setattr(dns, name, 1)
    dns.add_nameserver(tailnet=tailnet, by=ME, address="1.1.1.1")
    dns.add_nameserver(tailnet=tailnet, by=ME, address="1.1.1.1", domain="a.example")
    dns.add_search_domain(tailnet=tailnet, by=ME, domain="a.example")
    dns.add_record(tailnet=tailnet, by=ME, name="a.example", value="10.0.0.1")
    for add, values in (
        (dns.add_nameserver, {"address": "9.9.9.9"}),
        (dns.add_nameserver, {"address": "9.9.9.9", "domain": "a.example"}),
        (dns.add_nameserver, {"address": "9.9.9.9", "domain": "b.example"}),
        (dns.add_search_domain, {"domain": "b.example"}),
        (dns.add_record, {"name": "b.example", "value": "10.0.0.1"}),
    ):
        with pytest.raises(Invalid, match="remove one first"):
            add(tailnet=tailnet, by=ME, **values)  # type: ignore[operator]
    assert len(settings(tailnet).split_dns) == 1


def test_what_cannot_be_now(tailnet: Tailnet) -> None:
    suffix = dns.suffix_of(tailnet)
    with pytest.raises(Conflict, match="add one first"):
        dns.set_override(tailnet=tailnet, by=ME, on=True)
    for domain in (suffix, f"x.{suffix}"):
        with pytest.raises(Invalid, match="own domain"):
            dns.add_nameserver(tailnet=tailnet, by=ME, address="1.1.1.1", domain=domain)
    with pytest.raises(Invalid, match="already"):
        dns.add_search_domain(tailnet=tailnet, by=ME, domain=suffix)
    node = nodes.node(tailnet)
    with pytest.raises(Conflict, match="a device"):
        dns.add_record(tailnet=tailnet, by=ME, name=node.name, value="10.0.0.1")


# --- who, and who hears of it ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "may"),
    [(Role.ADMIN, True), (Role.NETWORK_ADMIN, True), (Role.IT_ADMIN, False), (Role.AUDITOR, False)],
)
def test_the_roles(tailnet: Tailnet, role: Role, may: bool) -> None:
    membership = factories.member(tailnet, role)
    by = Actor.person(membership.user)
    visitor = Visitor.of(membership)
    assert ("/dns/nameserver/add" in visitor.get("/dns").content.decode()) is may
    assert visitor.get("/dns/nameserver/add").status_code == (200 if may else 404)
    assert visitor.submit("/dns/magic", on="0").status_code == (302 if may else 404)
    if may:
        dns.add_search_domain(tailnet=tailnet, by=by, domain="a.example")
        return
    with pytest.raises(Forbidden):
        dns.add_search_domain(tailnet=tailnet, by=by, domain="a.example")
    assert settings(tailnet).magic_dns


def test_members_have_no_such_page(tailnet: Tailnet) -> None:
    visitor = Visitor.of(factories.member(tailnet))
    assert visitor.get("/dns").status_code == 404
    assert 'href="/dns"' not in visitor.get("/devices").content.decode()


def test_another_tailnet_is_not_touched(tailnet: Tailnet) -> None:
    other, stranger = factories.tailnet()
    dns.add_nameserver(tailnet=tailnet, by=ME, address="10.9.8.7")
    assert "10.9.8.7" not in Visitor(stranger).get("/dns").content.decode()
    assert "FallbackResolvers" not in told(other)


def test_a_change_is_audited_and_bumps_the_version_and_none_does_neither(tailnet: Tailnet) -> None:
    before = Tailnet.objects.get(pk=tailnet.pk).netmap_version
    for _ in range(2):
        dns.add_search_domain(tailnet=tailnet, by=ME, domain="a.example")
    assert Tailnet.objects.get(pk=tailnet.pk).netmap_version == before + 1
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.filter(target_property="DNS_SEARCH_PATHS").get()
    assert (event.old, event.new) == ({"search_paths": []}, {"search_paths": ["a.example"]})


def test_devices_get_the_settings_alone(tailnet: Tailnet) -> None:
    node = nodes.node(tailnet)
    before = snapshots.load_tailnet(tailnet.pk)
    assert before is not None
    dns.add_nameserver(tailnet=tailnet, by=ME, address="9.9.9.9")
    after = snapshots.load_tailnet(tailnet.pk)
    assert after is not None
    update = Engine(before).update(after)
    message = json.loads(update.message_for(node.pk, timezone.now()) or b"{}")
    assert message == {"DNSConfig": dns_config(after)}


# --- the page ----------------------------------------------------------------------------------------------


def test_the_page_shows_and_changes_everything(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)
    added = [
        ("nameserver", {"address": "9.9.9.9"}),
        ("nameserver", {"address": "https://dns.example.com/q?a=b", "domain": "corp.example"}),
        ("search", {"domain": "corp.example"}),
        ("record", {"name": "printer", "value": "192.168.1.20"}),
    ]
    for kind, values in added:
        assert visitor.submit(f"/dns/{kind}/add", page="/dns", **values).status_code == 200
    text = visitor.get("/dns").content.decode()
    for shown in ("9.9.9.9", "https://dns.example.com/q?a=b", "corp.example", "printer.", "192.168.1.20"):
        assert shown in text, shown
    assert visitor.submit("/dns/override", page="/dns", on="1").status_code == 200
    assert settings(tailnet).override_local_dns
    for kind, values in added:
        named = values | ({"name": f"printer.{dns.suffix_of(tailnet)}"} if kind == "record" else {})
        asked = visitor.get(f"/dns/{kind}/remove", named)
        assert asked.status_code == 200
        assert visitor.submit(f"/dns/{kind}/remove", **named)["Location"] == "/dns"
    row = settings(tailnet)
    assert (row.nameservers, row.split_dns, row.search_paths, row.extra_records) == ([], {}, [], [])


def test_what_is_wrong_is_said_in_the_form(place: tuple[Tailnet, User]) -> None:
    visitor = Visitor(place[1])
    for kind, values, said in (
        ("nameserver", {"address": "127.0.0.1"}, "every device can reach"),
        ("nameserver", {"address": "1.1.1.1", "domain": "a b"}, "Write a domain"),
        ("nameserver", {"address": "1.1.1.1", "domain": dns.suffix_of(place[0])}, "own domain"),
        ("search", {"domain": "…"}, "Write a domain"),
        ("record", {"name": "x", "value": "x"}, "Write an address"),
    ):
        answer = visitor.submit(f"/dns/{kind}/add", page="/dns", **values)
        assert answer.status_code == 422
        assert said in answer.content.decode()
    assert visitor.get("/dns/other/add").status_code == 404
    assert visitor.submit("/dns/override", page="/dns", on="1").status_code == 409
    assert visitor.get("/dns/magic").status_code == 200
