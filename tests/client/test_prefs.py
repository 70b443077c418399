"""Preferences: what can be said, and what is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.authkey import read_auth_key
from client.errors import PrefsError
from client.prefs import Prefs, normal_url

SAMPLE = Prefs(
    control_url="https://vpn.example.com",
    want_running=True,
    hostname="web-1",
    advertise_tags=("tag:server", "tag:ci"),
    shields_up=True,
    operator="alice",
    exit_node_id="nABC1",
    exit_node_allow_lan=True,
    exit_node_by_admin=True,
    advertise_routes=("10.1.0.0/16", "2001:db8::/64"),
    accept_routes=True,
    no_snat=True,
    accept_dns=False,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


def test_prefs_survive_their_json() -> None:
    assert Prefs.from_json(SAMPLE.to_json()) == SAMPLE


def test_an_edit_changes_only_what_it_names() -> None:
    edited = SAMPLE.edited({"Hostname": "web-2"})
    assert edited.hostname == "web-2"
    assert edited.edited({"Hostname": "web-1"}) == SAMPLE


def test_routes_are_kept_in_one_order() -> None:
    routes = ["2001:db8::/64", "::/0", "10.1.0.0/16", "0.0.0.0/0", "10.1.0.0/16"]
    prefs = Prefs().edited({"AdvertiseRoutes": routes})
    assert prefs.advertise_routes == ("0.0.0.0/0", "10.1.0.0/16", "::/0", "2001:db8::/64")
    assert prefs.offers_exit_node


def test_no_node_is_an_exit_node_and_uses_one() -> None:
    with pytest.raises(PrefsError, match="cannot use an exit node and be one"):
        SAMPLE.edited({"AdvertiseRoutes": ["0.0.0.0/0", "::/0"]})


def test_an_exit_node_chosen_by_the_user_is_no_longer_the_administrators() -> None:
    assert not SAMPLE.edited({"ExitNodeID": "nABC2"}).exit_node_by_admin
    assert not SAMPLE.edited({"ExitNodeID": ""}).uses_exit_node
    assert SAMPLE.edited({"Hostname": "web-2"}).exit_node_by_admin


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.1.2.3/16", "has host bits: say 10.1.0.0/16"),
        ("0.0.0.0/0", "use --advertise-exit-node"),
        ("10.1.0.0", None),
        ("nonsense", "is no prefix"),
        ("fe80::%eth0/64", "is no prefix"),
        ("127.0.0.0/8", "cannot be routed"),
        ("224.0.0.0/4", "cannot be routed"),
        ("100.64.0.0/16", "of the tailnet itself"),
        ("fd7a:115c:a1e0::/64", "of the tailnet itself"),
    ],
)
def test_what_may_be_advertised(text: str, words: str | None) -> None:
    if words is None:
        assert Prefs().edited({"AdvertiseRoutes": [text]}).advertise_routes == (f"{text}/32",)
        return
    with pytest.raises(PrefsError, match=words):
        Prefs().edited({"AdvertiseRoutes": [text]})


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://vpn.example.com", "https://vpn.example.com"),
        ("https://VPN.example.com/", "https://vpn.example.com"),
        ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
        ("http://[fd00::1]:8080/", "http://[fd00::1]:8080"),
        ("", ""),
    ],
)
def test_a_server_address_is_kept_in_one_form(text: str, url: str) -> None:
    assert normal_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "vpn.example.com",
        "ftp://vpn.example.com",
        "https://",
        "https://a:b@vpn.example.com",
        "https://vpn.example.com/panel",
        "https://vpn.example.com?x=1",
        "https://vpn.example.com:99999",
        "https://vpn.example.com:0",
        "https://[::1",
        "https://vpn\n.example.com",
        "https://" + "a" * 3000,
    ],
)
def test_what_is_no_server_address_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(PrefsError) as refused:
        normal_url(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"Hostname": "not a name"},
        {"Hostname": "-x"},
        {"Hostname": 7},
        {"AdvertiseTags": "tag:a"},
        {"AdvertiseTags": ["server"]},
        {"AdvertiseTags": ["tag:1x"]},
        {"AdvertiseTags": ["tag:a"] * 200},
        {"WantRunning": 1},
        {"OperatorUser": "a;b"},
        {"ExitNodeID": "a b"},
        {"ExitNodeIP": "exit"},
        {"AdvertiseRoutes": "10.0.0.0/8"},
        {"AdvertiseRoutes": ["10.0.0.0/8"] * 300},
        {"RouteAll": "yes"},
        {"Nonsense": True},
        [],
    ],
)
def test_wrong_values_are_refused(changes: Any) -> None:
    with pytest.raises(PrefsError):
        SAMPLE.edited(changes)


@given(st.dictionaries(st.sampled_from(sorted(SAMPLE.to_json())), json_values))
def test_any_json_is_prefs_or_a_declared_error(changes: dict[str, Any]) -> None:
    try:
        edited = SAMPLE.edited(changes)
    except PrefsError:
        return
    assert Prefs.from_json(edited.to_json()) == edited


def test_an_auth_key_is_typed_or_read_from_a_file(tmp_path: Any) -> None:
    path = tmp_path / "key"
    path.write_text("tskey-auth-abc\n")
    assert read_auth_key(f"file:{path}") == read_auth_key(" tskey-auth-abc ") == "tskey-auth-abc"


@pytest.mark.parametrize("content", ["", "two words", "bell\x07"])
def test_a_file_without_a_key_says_so(tmp_path: Any, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    with pytest.raises(PrefsError) as refused:
        read_auth_key(f"file:{path}")
    assert not content or content not in str(refused.value)


def test_a_missing_key_file_is_named(tmp_path: Any) -> None:
    with pytest.raises(PrefsError, match="nowhere: No such file"):
        read_auth_key(f"file:{tmp_path}/nowhere")
