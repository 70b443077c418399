"""Registration and map requests, Hostinfo, times: round trips, Go's way with names, hostile JSON."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.recordings import NODE_KEY, RECORDINGS
from tests.wire.strategies import (
    any_case,
    disco_keys,
    endpoints,
    hostinfos,
    json_values,
    labels,
    net_infos,
    node_keys,
    texts,
    times,
    words,
)
from wire.codec import decode_object, encode_json
from wire.control import (
    ZERO_TIME,
    Hostinfo,
    MapRequest,
    NetInfo,
    PingRequest,
    RegisterRequest,
    RegisterResponse,
    format_time,
    parse_time,
)
from wire.errors import MessageError, WireError

register_requests = st.builds(
    RegisterRequest,
    version=st.integers(0, 200),
    node_key=node_keys,
    old_node_key=node_keys,
    auth_key=words,
    expiry=st.none() | times,
    followup=texts,
    hostinfo=hostinfos(),
    ephemeral=st.booleans(),
    trenza_rotate=st.booleans(),
)
map_requests = st.builds(
    MapRequest,
    version=st.integers(0, 200),
    node_key=node_keys,
    disco_key=disco_keys,
    compress=st.sampled_from(["", "zstd"]),
    keep_alive=st.booleans(),
    stream=st.booleans(),
    omit_peers=st.booleans(),
    hostinfo=st.none() | hostinfos(),
    endpoints=endpoints,
    endpoint_types=st.lists(st.integers(0, 5), max_size=4).map(tuple),
)
register_responses = st.builds(
    RegisterResponse,
    user_id=st.integers(0, 2**31),
    login_name=texts,
    display_name=texts.filter(bool),
    profile_pic_url=texts,
    provider=words,
    node_key_expired=st.booleans(),
    machine_authorized=st.booleans(),
    auth_url=texts,
    error=texts,
)


def over_the_wire(content: dict[str, Any]) -> dict[str, Any]:
    return decode_object(encode_json(content))


def without_raw(value: Any) -> Any:
    """A message with its Hostinfo's pass-through copy blanked: what was typed is compared, not the copy."""
    from dataclasses import replace

    hostinfo = getattr(value, "hostinfo", None)
    return replace(value, hostinfo=replace(hostinfo, raw={})) if hostinfo is not None else value


# --- round trips -----------------------------------------------------------------------------------------


@given(register_requests)
def test_register_requests_round_trip(message: RegisterRequest) -> None:
    assert without_raw(RegisterRequest.from_json(over_the_wire(message.to_json()))) == message


@given(map_requests)
def test_map_requests_round_trip(message: MapRequest) -> None:
    assert without_raw(MapRequest.from_json(over_the_wire(message.to_json()))) == message


@given(register_responses)
def test_register_responses_round_trip(message: RegisterResponse) -> None:
    assert RegisterResponse.from_json(over_the_wire(message.to_json())) == message


@given(net_infos())
def test_net_infos_round_trip(message: NetInfo) -> None:
    assert NetInfo.from_json(over_the_wire(message.to_json())) == message


@given(
    st.builds(PingRequest, url=texts, url_is_noise=st.booleans(), types=words, payload=st.binary(max_size=99))
)
def test_ping_requests_round_trip(message: PingRequest) -> None:
    assert PingRequest.from_json(over_the_wire(message.to_json())) == message


@given(hostinfos(), st.dictionaries(labels.map("x{}".format), json_values, max_size=3))
def test_what_is_only_passed_on_survives(hostinfo: Hostinfo, more: dict[str, Any]) -> None:
    content = over_the_wire(hostinfo.to_json() | more)
    assert Hostinfo.from_json(content).raw == content
    assert Hostinfo.from_json(content).to_json() == content


@given(register_requests, st.integers(0, 2**32))
def test_names_are_read_in_any_case_and_strangers_ignored(message: RegisterRequest, seed: int) -> None:
    content = any_case(over_the_wire(message.to_json()), seed)
    assert without_raw(RegisterRequest.from_json(content)) == message


@given(map_requests, st.integers(0, 2**32))
def test_a_map_request_is_read_in_any_case(message: MapRequest, seed: int) -> None:
    content = any_case(over_the_wire(message.to_json()), seed)
    assert without_raw(MapRequest.from_json(content)) == message


# --- the reference's messages ----------------------------------------------------------------------------


def test_the_references_register_request_is_read() -> None:
    message = RegisterRequest.from_json(RECORDINGS["register"])
    assert (message.version, message.node_key, message.auth_key) == (130, NODE_KEY, "tskey-auth-x")
    assert message.old_node_key.is_zero
    assert message.expiry == datetime(1970, 1, 1, 0, 2, 3, tzinfo=UTC)
    assert (message.followup, message.ephemeral, message.trenza_rotate) == (
        "http://h/register/t",
        True,
        False,
    )
    hostinfo = message.hostinfo
    assert (hostinfo.hostname, hostinfo.os, hostinfo.shields_up) == ("box", "linux", True)
    assert (hostinfo.routable_ips, hostinfo.request_tags) == (("10.0.0.0/8",), ("tag:a",))
    assert hostinfo.services[0].proto == "peerapi4"
    assert hostinfo.ssh_host_keys == ("ssh-ed25519 AAAA",)
    assert hostinfo.net_info is not None
    assert (hostinfo.net_info.working_udp, hostinfo.net_info.working_ipv6) == (True, False)
    assert (hostinfo.net_info.preferred_derp, hostinfo.net_info.derp_latency) == (900, {"900-v4": 0.012})


def test_the_references_map_request_is_read() -> None:
    message = MapRequest.from_json(RECORDINGS["map_request"])
    assert (message.stream, message.omit_peers, message.compress, message.keep_alive) == (
        True,
        False,
        "zstd",
        True,
    )
    assert message.disco_key.is_zero
    assert (message.endpoints, message.endpoint_types) == (("192.0.2.1:41641", "[2001:db8::1]:2"), (1, 2))


# --- nulls, absences, odd values -------------------------------------------------------------------------


def test_null_is_absent() -> None:
    content = {
        "Version": None,
        "NodeKey": None,
        "Auth": None,
        "Hostinfo": None,
        "Expiry": None,
        "Followup": None,
    }
    message = RegisterRequest.from_json(content)
    assert message.node_key.is_zero
    assert message.expiry is None
    assert message.hostinfo == Hostinfo(raw={})
    lists = {"Endpoints": None, "EndpointTypes": None, "Hostinfo": {"Services": None, "NetInfo": None}}
    assert MapRequest.from_json(lists).hostinfo == Hostinfo(raw={"Services": None, "NetInfo": None})


@pytest.mark.parametrize(
    "content",
    [
        {"Version": -1},
        {"Version": 65_536},
        {"Hostinfo": {"Services": [{"Proto": "tcp", "Port": 65_536}]}},
        {"Hostinfo": {"Services": [{"Proto": "tcp", "Port": -1}]}},
    ],
)
def test_a_number_that_others_could_not_read_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(MessageError, match="between 0 and 65535"):
        MapRequest.from_json(content)


def test_gos_optional_booleans_are_read() -> None:
    told = NetInfo.from_json({"WorkingUDP": "true", "WorkingIPv6": "false", "OSHasIPv6": ""})
    assert (told.working_udp, told.working_ipv6, told.os_has_ipv6) == (True, False, None)


@pytest.mark.parametrize(
    "member", ["User", "Login", "NodeKeyExpired", "MachineAuthorized", "AuthURL", "Error"]
)
def test_every_member_of_a_register_response_is_always_sent(member: str) -> None:
    assert RegisterResponse().to_json()[member] is not None


@pytest.mark.parametrize(
    "content",
    [
        {"NodeKey": "nodekey:xyz"},
        {"NodeKey": 5},
        {"OldNodeKey": "mkey:" + "0" * 64},
        {"Version": "130"},
        {"Version": True},
        {"Auth": []},
        {"Auth": "x"},
        {"Auth": {"AuthKey": "x" * 513}},
        {"Expiry": "tomorrow"},
        {"Ephemeral": 1},
        {"Hostinfo": [1]},
        {"Hostinfo": {"Services": [5]}},
        {"Hostinfo": {"RoutableIPs": "10.0.0.0/8"}},
        {"Hostinfo": {"RoutableIPs": ["10.0.0.0/8"] * 1025}},
        {"Hostinfo": {"NetInfo": 5}},
        {"Hostinfo": {"Hostname": "x" * 1025}},
    ],
)
def test_wrong_types_are_declared_errors(content: dict[str, Any]) -> None:
    if content.get("Auth") == []:
        assert RegisterRequest.from_json(content).auth_key == ""
        return
    with pytest.raises(MessageError):
        RegisterRequest.from_json(content)


@pytest.mark.parametrize(
    "content",
    [
        {"DiscoKey": "discokey:"},
        {"Endpoints": ["192.0.2.1:1"] * 129},
        {"EndpointTypes": [1] * 129},
        {"EndpointTypes": {"a": 1}},
        {"Stream": "yes"},
    ],
)
def test_wrong_map_requests_are_declared_errors(content: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        MapRequest.from_json(content)


MEMBERS = [
    "Version",
    "NodeKey",
    "OldNodeKey",
    "DiscoKey",
    "Auth",
    "Expiry",
    "Followup",
    "Hostinfo",
    "Ephemeral",
    "Endpoints",
    "EndpointTypes",
    "Stream",
    "Compress",
    "User",
    "Login",
    "URL",
    "Payload",
    "NetInfo",
    "DERPLatency",
    "Services",
]


@given(json_values | st.dictionaries(st.sampled_from(MEMBERS), json_values, max_size=6))
def test_hostile_json_is_a_message_or_a_declared_error(content: Any) -> None:
    for kind in (RegisterRequest, RegisterResponse, MapRequest, PingRequest, Hostinfo, NetInfo):
        with contextlib.suppress(WireError):
            kind.from_json(content)


@pytest.mark.parametrize("payload", ["***", "\x80", "abc"])
def test_a_payload_that_is_no_base64_is_a_declared_error(payload: str) -> None:
    with pytest.raises(MessageError):
        PingRequest.from_json({"Payload": payload})


def test_a_payload_is_base64() -> None:
    assert PingRequest.from_json({"Payload": base64.b64encode(b"x").decode()}).payload == b"x"


def test_secrets_stay_out_of_reprs() -> None:
    message = RegisterRequest(version=1, node_key=NODE_KEY, auth_key="canary", followup="http://h/canary")
    assert "canary" not in repr(message) + repr(RegisterResponse(auth_url="http://h/canary"))


# --- times -----------------------------------------------------------------------------------------------


@given(times)
def test_times_round_trip(moment: datetime) -> None:
    assert parse_time(format_time(moment)) == moment


@given(times, st.integers(-14 * 60, 14 * 60))
def test_a_time_means_the_same_in_any_zone(moment: datetime, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    assert parse_time(moment.astimezone(zone).isoformat()) == moment


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2030-01-02T03:04:05Z", 0),
        ("2030-01-02T03:04:05.6Z", 600_000),
        ("2030-01-02T03:04:05.678900Z", 678_900),
        ("2030-01-02T03:04:05.678901234Z", 678_901),
        ("2030-01-02T05:04:05.678901234+02:00", 678_901),
        ("2030-01-01T23:04:05.678901234-04:00", 678_901),
    ],
)
def test_gos_nanoseconds_are_read(text: str, microsecond: int) -> None:
    assert parse_time(text) == datetime(2030, 1, 2, 3, 4, 5, microsecond, tzinfo=UTC)


def test_gos_zero_time_is_none() -> None:
    assert parse_time("") is parse_time(ZERO_TIME) is None
    assert format_time(None) == ZERO_TIME
    assert parse_time("1970-01-01T00:02:03Z") is not None, "a logout's expiry is a time"


@given(
    st.text(max_size=40)
    | st.from_regex(r"\d{1,5}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d|Z)?", fullmatch=True)
)
def test_other_texts_are_times_or_declared_errors(text: str) -> None:
    with contextlib.suppress(MessageError):
        moment = parse_time(text)
        assert moment is None or moment.tzinfo is UTC
