"""The API's DNS: each setting by itself, all at once, as programs write them."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.actors import Actor
from accounts.models import AuditEvent, Tailnet
from accounts.roles import Role
from accounts.tenancy import scope
from controlplane.services import dns
from tests.accounts import factories as people
from tests.api import Api, as_client, as_person
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
BASE = "/tailnet/-/dns"
EMPTY: dict[str, Any] = {
    "nameservers": [],
    "splitDNS": {},
    "searchPaths": [],
    "preferences": {"magicDNS": True, "overrideLocalDNS": False},
}


@pytest.fixture
def tailnet() -> Tailnet:
    return people.tailnet("ours")[0]


@pytest.fixture
def api(tailnet: Tailnet) -> Api:
    return as_client(tailnet, "dns")


def last_event(tailnet: Tailnet) -> AuditEvent:
    with scope(tailnet=tailnet):
        return AuditEvent.objects.order_by("-pk")[0]


def events(tailnet: Tailnet) -> int:
    with scope(tailnet=tailnet):
        return AuditEvent.objects.count()


def test_nameservers_are_replaced_in_their_order(api: Api, tailnet: Tailnet) -> None:
    assert api.get(f"{BASE}/nameservers") == {"dns": []}
    wanted = ["9.9.9.9", "2620:FE:0::FE", "9.9.9.9", "[2620:fe::9]:5353", "https://dns.example.com/dns-query"]
    kept = ["9.9.9.9", "2620:fe::fe", "[2620:fe::9]:5353", "https://dns.example.com/dns-query"]
    assert api.post(f"{BASE}/nameservers", {"dns": wanted}) == {"dns": kept, "magicDNS": True}
    assert api.get(f"{BASE}/nameservers") == {"dns": kept}
    event = last_event(tailnet)
    assert (event.actor_type, event.target_property) == ("API_TOKEN", "DNS_NAMESERVERS")
    assert api.post(f"{BASE}/nameservers", {"dns": None})["dns"] == [], "a list that Go has none of"


def test_a_nameserver_that_stays_keeps_its_option_and_without_any_the_override_ends(
    api: Api, tailnet: Tailnet
) -> None:
    me = Actor.command()
    dns.add_nameserver(tailnet=tailnet, by=me, address="1.1.1.1", use_with_exit_node=True)
    dns.set_override(tailnet=tailnet, by=me, on=True)
    api.post(f"{BASE}/nameservers", {"dns": ["8.8.8.8", "1.1.1.1"]})
    assert api.get(f"{BASE}/configuration")["nameservers"] == [
        {"address": "8.8.8.8", "useWithExitNode": False},
        {"address": "1.1.1.1", "useWithExitNode": True},
    ]
    assert api.get(f"{BASE}/configuration")["preferences"]["overrideLocalDNS"]
    api.post(f"{BASE}/nameservers", {"dns": []})
    assert not api.get(f"{BASE}/configuration")["preferences"]["overrideLocalDNS"]


def test_preferences_and_search_paths(api: Api, tailnet: Tailnet) -> None:
    assert api.get(f"{BASE}/preferences") == {"magicDNS": True}
    assert api.post(f"{BASE}/preferences", {"magicDNS": False}) == {"magicDNS": False}
    assert last_event(tailnet).target_property == "MAGIC_DNS"
    paths = {"searchPaths": ["b.example.com", "A.example.com."]}
    assert api.post(f"{BASE}/searchpaths", paths) == {"searchPaths": ["b.example.com", "a.example.com"]}
    assert api.get(f"{BASE}/searchpaths") == {"searchPaths": ["b.example.com", "a.example.com"]}


def test_split_dns_is_replaced_or_changed(api: Api, tailnet: Tailnet) -> None:
    assert api.get(f"{BASE}/split-dns") == {}
    both = {"corp.example.com": ["10.0.0.53"], "lab.example.com": ["10.0.1.53", "10.0.2.53"]}
    assert api.put(f"{BASE}/split-dns", both) == both
    changed = api.patch(f"{BASE}/split-dns", {"lab.example.com": [], "new.example.com": ["10.0.3.53"]})
    assert changed == {"corp.example.com": ["10.0.0.53"], "new.example.com": ["10.0.3.53"]}
    assert last_event(tailnet).target_property == "SPLIT_DNS"
    assert api.patch(f"{BASE}/split-dns", {"new.example.com": None}) == {"corp.example.com": ["10.0.0.53"]}
    assert api.put(f"{BASE}/split-dns", {"x.example.com": ["10.0.0.1"]}) == {"x.example.com": ["10.0.0.1"]}
    assert api.put(f"{BASE}/split-dns", {}) == {}


def test_the_whole_configuration_at_once(api: Api, tailnet: Tailnet) -> None:
    assert api.get(f"{BASE}/configuration") == EMPTY
    before = events(tailnet)
    sent = {
        "nameservers": [{"address": "8.8.8.8"}, {"address": "1.1.1.1", "useWithExitNode": True}],
        "splitDNS": {"foo.example.com": [{"address": "1.1.1.2"}], "bar.example.com": None},
        "searchPaths": ["example.com"],
        "preferences": {"magicDNS": True, "overrideLocalDNS": True},
    }
    made = {
        "nameservers": [
            {"address": "8.8.8.8", "useWithExitNode": False},
            {"address": "1.1.1.1", "useWithExitNode": True},
        ],
        "splitDNS": {"foo.example.com": [{"address": "1.1.1.2", "useWithExitNode": False}]},
        "searchPaths": ["example.com"],
        "preferences": {"magicDNS": True, "overrideLocalDNS": True},
    }
    assert api.post(f"{BASE}/configuration", sent) == made
    assert api.get(f"{BASE}/configuration") == made
    assert events(tailnet) == before + 1
    assert set(last_event(tailnet).new) == {
        "nameservers",
        "override_local_dns",
        "search_paths",
        "split_dns",
    }


def test_what_a_configuration_leaves_out_is_empty_or_off(api: Api) -> None:
    api.post(
        f"{BASE}/configuration",
        {"nameservers": [{"address": "8.8.8.8"}], "preferences": {"overrideLocalDNS": True}},
    )
    nothing = EMPTY | {"preferences": {"magicDNS": False, "overrideLocalDNS": False}}
    assert api.post(f"{BASE}/configuration", {"preferences": {}}) == nothing
    empty = {"nameservers": None, "splitDNS": None, "searchPaths": None, "preferences": None}
    assert api.post(f"{BASE}/configuration", empty) == nothing


def test_records_of_the_panel_stay(api: Api, tailnet: Tailnet) -> None:
    dns.add_record(tailnet=tailnet, by=Actor.command(), name="nas", value="100.64.0.9")
    api.post(f"{BASE}/configuration", {})
    with scope(tailnet=tailnet):
        assert [one["Value"] for one in dns.dns_settings(tailnet).extra_records] == ["100.64.0.9"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "nameservers", {"dns": ["nowhere"]}, 400, "write it like 9.9.9.9"),
        ("POST", "nameservers", {"dns": ["9.9.9.9"] * 9}, 400, "8"),
        ("POST", "nameservers", {"dns": "9.9.9.9"}, 400, "list"),
        ("POST", "nameservers", {}, 400, "dns"),
        ("POST", "nameservers", {"dns": ["127.0.0.1"]}, 409, "not the same host"),
        ("POST", "nameservers", {"dns": ["100.100.100.100"]}, 409, "own resolver"),
        ("POST", "nameservers", {"dns": ["9.9.9.9:99999"]}, 409, "65535"),
        ("POST", "preferences", {"magicDNS": "yes"}, 400, "neither true nor false"),
        ("POST", "preferences", {}, 400, "magicDNS"),
        ("POST", "searchpaths", {"searchPaths": ["no spaces"]}, 400, "corp.example.com"),
        ("POST", "searchpaths", {"searchPaths": [""]}, 400, "blank"),
        ("POST", "searchpaths", {"searchPaths": [f"{n}.example.com" for n in range(33)]}, 400, "32"),
        ("PUT", "split-dns", [], 400, "dictionary"),
        ("PUT", "split-dns", {"a b": ["9.9.9.9"]}, 409, "no domain"),
        ("PUT", "split-dns", {"a.example.com": "9.9.9.9"}, 400, "list"),
        ("PATCH", "split-dns", {"a.example.com": ["::1"]}, 409, "not the same host"),
        ("POST", "configuration", {"colour": 1}, 400, "no member of this name"),
        ("POST", "configuration", {"nameservers": [{}]}, 400, "address"),
        ("POST", "configuration", {"preferences": {"overrideLocalDNS": True}}, 409, "no nameserver"),
        ("POST", "configuration", {"preferences": {"magic": True}}, 400, "no member of this name"),
    ],
)
def test_what_is_wrong_changes_nothing_and_says_why(
    api: Api, tailnet: Tailnet, method: str, path: str, body: Any, status: int, words: str
) -> None:
    api.put(f"{BASE}/split-dns", {"kept.example.com": ["10.0.0.53"]})
    before, count = api.get(f"{BASE}/configuration"), events(tailnet)
    refused = api.refusal(method, f"{BASE}/{path}", body)
    assert (refused.status, words in refused.message) == (status, True), refused
    assert (api.get(f"{BASE}/configuration"), events(tailnet)) == (before, count)


def test_the_tailnets_own_domain_and_too_many_domains_are_refused(api: Api, tailnet: Tailnet) -> None:
    own = dns.suffix_of(tailnet)
    assert api.refusal("POST", f"{BASE}/searchpaths", {"searchPaths": [own]}).status == 409
    assert api.refusal("PUT", f"{BASE}/split-dns", {f"a.{own}": ["9.9.9.9"]}).status == 409
    many = {f"d{number}.example.com": ["9.9.9.9"] for number in range(dns.MAX_DOMAINS + 1)}
    assert api.refusal("PUT", f"{BASE}/split-dns", many).status == 409
    many.popitem()
    assert len(api.put(f"{BASE}/split-dns", many)) == dns.MAX_DOMAINS
    assert api.refusal("PATCH", f"{BASE}/split-dns", {"one.more": ["9.9.9.9"]}).status == 409


@pytest.mark.parametrize("path", ["nameservers", "preferences", "searchpaths", "configuration", "split-dns"])
def test_who_may_not_is_told_so(tailnet: Tailnet, path: str) -> None:
    method = "PUT" if path == "split-dns" else "POST"
    other, _ = people.tailnet()
    reads = as_client(tailnet, "dns:read")
    assert reads.get(f"{BASE}/{path}") is not None
    assert reads.refusal(method, f"{BASE}/{path}", {}).status == 403
    assert as_client(tailnet, "feature_settings").refusal("GET", f"{BASE}/{path}").status == 403
    assert reads.refusal("GET", f"/tailnet/{other.name}/dns/{path}").status == 404
    auditor = as_person(tailnet, people.member(tailnet, Role.AUDITOR).user)
    assert auditor.get(f"{BASE}/{path}") is not None
    assert auditor.refusal(method, f"{BASE}/{path}", {}).status == 403
    member = as_person(tailnet, people.member(tailnet).user)
    assert member.refusal("GET", f"{BASE}/{path}").status == 403
