"""Options of ``up`` and ``set``, and the preferences that they mean."""

from __future__ import annotations

from typing import Any

import pytest

from client.cli.options import as_option, changes_of, defaults, exit_node_id, given, values_of
from client.cli.settings import set_
from client.errors import PrefsError
from client.prefs import Prefs

STATUS = {
    "BackendState": "Running",
    "Self": {"TailscaleIPs": ["100.64.0.1", "fd7a:115c:a1e0::1"]},
    "Peer": {
        "nodekey:1": {
            "ID": "nEXIT",
            "DNSName": "berlin.tail.example.",
            "TailscaleIPs": ["100.64.0.2", "fd7a:115c:a1e0::2"],
            "ExitNodeOption": True,
        },
        "nodekey:2": {
            "ID": "nDESK",
            "DNSName": "desk.tail.example.",
            "TailscaleIPs": ["100.64.0.3"],
            "ExitNodeOption": False,
        },
    },
}


def after(before: Prefs, **options: Any) -> Prefs:
    """What ``trenza set`` with these options makes of the preferences."""
    return before.edited(changes_of(given(options), values_of(before.to_json())))


def test_values_and_preferences_say_the_same() -> None:
    prefs = Prefs(exit_node_ip="100.64.0.2", no_snat=True, advertise_routes=("10.0.0.0/8",))
    assert Prefs().edited(changes_of(values_of(prefs.to_json()), defaults())) == prefs


def test_the_offer_of_an_exit_node_and_of_networks_do_not_disturb_each_other() -> None:
    exit_node = after(Prefs(), advertise_exit_node=True)
    assert exit_node.advertise_routes == ("0.0.0.0/0", "::/0")
    both = after(exit_node, advertise_routes="10.0.0.0/8, 2001:db8::/32")
    assert both.advertise_routes == ("0.0.0.0/0", "10.0.0.0/8", "::/0", "2001:db8::/32")
    assert after(both, advertise_exit_node=False).advertise_routes == ("10.0.0.0/8", "2001:db8::/32")
    assert after(both, advertise_routes="") == exit_node


def test_a_default_route_is_not_advertised_by_accident() -> None:
    with pytest.raises(PrefsError, match="--advertise-exit-node"):
        after(Prefs(), advertise_routes="0.0.0.0/0,::/0")


@pytest.mark.parametrize(
    "text", ["berlin", "Berlin.tail.example", "100.64.0.2", "fd7a:115c:a1e0::2", "nEXIT"]
)
def test_an_exit_node_is_found_by_name_address_and_id(text: str) -> None:
    assert exit_node_id(text, STATUS) == "nEXIT"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("desk", "is not approved"),
        ("nowhere", "there is no node"),
        ("100.64.0.1", "is this machine"),
        ("100.64.0.9", "no node has the address"),
    ],
)
def test_what_is_no_exit_node_is_refused(text: str, words: str) -> None:
    with pytest.raises(PrefsError, match=words):
        exit_node_id(text, STATUS)


def test_before_joining_an_address_will_do() -> None:
    stopped = {"BackendState": "NeedsLogin", "Self": {}, "Peer": {}}
    assert exit_node_id("100.64.0.2", stopped) == "100.64.0.2"
    assert after(Prefs(), exit_node="100.64.0.2").exit_node_ip == "100.64.0.2"


@pytest.mark.parametrize(
    ("argument", "value"),
    [("--accept-dns=false", False), ("--accept-dns=true", True), ("--no-accept-dns", False)],
)
def test_flags_are_also_understood_as_in_go(argument: str, value: bool) -> None:
    context = set_.make_context("set", [argument])
    assert context.params["accept_dns"] is value


def test_an_option_is_written_as_it_is_typed() -> None:
    assert as_option("snat_subnet_routes", False) == "--no-snat-subnet-routes"
    assert as_option("advertise_routes", ["10.0.0.0/8", "::/0"]) == "--advertise-routes=10.0.0.0/8,::/0"
