"""NAT-PMP and PCP as bytes, beside the RFCs' layouts; whatever a router sends is an answer or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.net.portmap import natpmp, pcp, upnp
from tests.client.net.portmap.routers import DESCRIPTION, PUBLIC, SERVICE, Router

PORTS = st.integers(1, 65535)
NONCE = bytes(range(12))


def test_natpmp_requests_are_those_of_the_rfc() -> None:
    assert natpmp.address_request() == bytes.fromhex("0000")
    assert natpmp.map_request(0x1234, 0x5678, 7200) == bytes.fromhex("0001 0000 1234 5678 00001c20")


def test_natpmp_answers_are_those_of_the_rfc() -> None:
    assert natpmp.parse_address(bytes.fromhex("0080 0000 00000007 cb007109")) == natpmp.ExternalAddress(
        PUBLIC, 7
    )
    assert natpmp.parse_address(bytes.fromhex("0080 0003 00000007 00000000")) == natpmp.ExternalAddress(
        None, 7
    )
    mapped = natpmp.parse_map(bytes.fromhex("0081 0000 00000007 1234 5678 00000e10"), 0x1234)
    assert mapped == natpmp.Mapped(0, 0x1234, 0x5678, 3600, 7)
    refused = natpmp.parse_map(bytes.fromhex("0081 0002 00000007 1234 0000 00000e10"), 0x1234)
    assert refused is not None
    assert refused.lifetime == 0


def test_pcp_requests_are_those_of_the_rfc() -> None:
    head = "02 01 0000 00001c20 00000000000000000000ffff c0a80105"
    body = NONCE.hex() + "11 000000 1234 5678 00000000000000000000ffff 00000000"
    assert pcp.map_request("192.168.1.5", 0x1234, 0x5678, 7200, NONCE) == bytes.fromhex(head + body)
    assert pcp.announce_request("192.168.1.5") == bytes.fromhex("02 00 0000 00000000" + head[20:])


@given(internal=PORTS, wanted=PORTS, lifetime=st.integers(1, 2**32 - 1), granted=st.integers(1, 2**32 - 1))
def test_both_are_understood_by_a_router_and_its_answers_by_us(
    internal: int, wanted: int, lifetime: int, granted: int
) -> None:
    router = Router({"PCP", "NAT-PMP"}, lifetime=granted)
    answer = router.answer(pcp.map_request("192.168.1.5", internal, wanted, lifetime, NONCE))
    assert answer is not None
    assert pcp.parse_map(answer, internal, NONCE) == pcp.Mapped(0, PUBLIC, wanted, granted, 7)
    assert pcp.parse_map(answer, internal, bytes(12)) is None
    assert pcp.parse_map(answer, internal ^ 1, NONCE) is None
    answer = router.answer(natpmp.map_request(internal, wanted, lifetime))
    assert answer is not None
    assert natpmp.parse_map(answer, internal) == natpmp.Mapped(0, internal, wanted, granted, 7)
    assert natpmp.parse_map(answer, internal ^ 1) is None


@given(packet=st.binary(max_size=80), port=PORTS)
def test_any_bytes_are_an_answer_or_none(packet: bytes, port: int) -> None:
    natpmp.parse_address(packet)
    natpmp.parse_map(packet, port)
    pcp.parse_answer(packet)
    pcp.parse_map(packet, port, NONCE)


@pytest.mark.parametrize("protocol", ["PCP", "NAT-PMP"])
def test_a_truncated_answer_is_none(protocol: str) -> None:
    router = Router({protocol})
    request = (
        pcp.map_request("192.168.1.5", 1, 2, 3, NONCE) if protocol == "PCP" else natpmp.map_request(1, 2, 3)
    )
    answer = router.answer(request)
    assert answer is not None
    for size in range(len(answer)):
        assert pcp.parse_map(answer[:size], 1, NONCE) is None
        assert natpmp.parse_map(answer[:size], 1) is None


LOCATION = "http://192.168.1.1:5000/folder/root.xml"


def test_upnp_finds_the_services_that_map_ports() -> None:
    found = upnp.parse_description(DESCRIPTION, LOCATION)
    assert [service.place for service in found] == [
        upnp.Place(5000, "/ppp"),
        upnp.Place(5000, "/folder/control?a=1&b=2"),
    ]
    assert found[1].kind == SERVICE
    elsewhere = DESCRIPTION.replace("<device>", "<URLBase>http://10.0.0.1:81/x/</URLBase><device>", 1)
    assert upnp.parse_description(elsewhere, LOCATION)[1].place == upnp.Place(81, "/x/control?a=1&b=2")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://192.168.1.1", upnp.Place(80, "/")),
        ("http://example.com:8080/a?b", upnp.Place(8080, "/a?b")),
        ("https://192.168.1.1/a", None),
        ("http://192.168.1.1:99999/", None),
        ("http://[", None),
        ("/a", None),
        ("http://192.168.1.1/a b", None),
        ("http://192.168.1.1/\N{LATIN SMALL LETTER E WITH ACUTE}", None),
    ],
)
def test_upnp_goes_to_the_router_alone(url: str, place: upnp.Place | None) -> None:
    assert upnp.place_of(url) == place


def test_upnp_arguments_cannot_be_more_than_text() -> None:
    service = upnp.Service(SERVICE, upnp.Place(80, "/c"))
    raw = upnp.control_request("192.168.1.1", service, "AddPortMapping", {"NewName": "</x>&", "NewPort": 7})
    head, _, body = raw.decode().partition("\r\n\r\n")
    assert f'SOAPAction: "{SERVICE}#AddPortMapping"' in head
    assert f"Content-Length: {len(body)}" in head
    assert "<NewName>&lt;/x&gt;&amp;</NewName><NewPort>7</NewPort>" in body


def test_upnp_reads_what_a_router_answers() -> None:
    told = upnp.parse_search(f"HTTP/1.1 200 OK\r\nEXT:\r\nlocation:{LOCATION}\r\n\r\n".encode())
    assert told == LOCATION
    assert upnp.parse_search(f"NOTIFY * HTTP/1.1\r\nLOCATION: {LOCATION}\r\n\r\n".encode()) is None
    assert upnp.parse_search(b"HTTP/1.1 200 OK\r\nLOCATION: file:///etc/passwd\r\n\r\n") is None
    assert upnp.parse_error("<e:errorCode xmlns:e='x'> 718 </e:errorCode>") == upnp.CONFLICT
    assert upnp.parse_error("<errorCode>many</errorCode>") is None
    found = [
        upnp.parse_external_host(f"<NewExternalIPAddress>{host}</NewExternalIPAddress>")
        for host in (PUBLIC, "0.0.0.0", "x", "")
    ]
    assert found == [PUBLIC, None, None, None]


TAGS = st.sampled_from(
    ["<service>", "</service>", "<serviceType>", SERVICE, "<controlURL>", "http://[", "</a", ">"]
)


@given(text=st.lists(TAGS | st.text(), max_size=20).map("".join))
def test_upnp_survives_whatever_a_router_says(text: str) -> None:
    for service in upnp.parse_description(text, LOCATION):
        assert "\r" not in service.place.path
    upnp.parse_error(text)
    upnp.parse_external_host(text)
    upnp.parse_search(b"HTTP/1.1 200 OK\r\nLOCATION: " + text.encode())
