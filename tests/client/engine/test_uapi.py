"""WireGuard's configuration protocol: what is serialized reads back, what is malformed is refused."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.engine import uapi
from client.engine.base import PeerPlan, plan_peers
from client.wireguard import EngineStatus, PeerConfig, PeerStatus
from wire.keys import NodePrivate, NodePublic

ports = st.integers(0, 65_535)
privates = st.binary(min_size=32, max_size=32).map(NodePrivate.generate)
publics = st.binary(min_size=32, max_size=32).map(NodePublic)
endpoints = st.tuples(st.ip_addresses().map(str), ports)
prefixes = st.tuples(st.ip_addresses(), st.integers(0, 32)).map(
    lambda pair: str(ipaddress.ip_network(pair, strict=False))
)
peer_statuses = st.builds(
    PeerStatus,
    endpoint=st.none() | endpoints,
    rx_bytes=st.integers(0, 2**63),
    tx_bytes=st.integers(0, 2**63),
    last_handshake=st.integers(0, 2**31).map(float),
    allowed_ips=st.frozensets(prefixes, max_size=4),
)
peer_configs = st.builds(
    PeerConfig,
    key=publics,
    allowed_ips=st.lists(prefixes, max_size=4, unique=True).map(tuple),
    endpoint=st.none() | endpoints,
)
peer_lists = st.lists(peer_configs, max_size=6, unique_by=lambda peer: peer.key)


class Wireguard:
    """The other end: keeps what it is told as the protocol's text defines it."""

    def __init__(self) -> None:
        self.private: NodePrivate | None = None
        self.port = self.mark = 0
        self.peers: dict[NodePublic, PeerStatus] = {}

    def set(self, request: bytes) -> None:
        assert request.startswith(b"set=1\n")
        assert request.endswith(b"\n\n")
        assert b"\n\n" not in request[:-2]
        blocks = request.decode().split("public_key=")
        for line in blocks[0].split()[1:]:
            name, _, value = line.partition("=")
            if name == "private_key":
                self.private = NodePrivate(bytes.fromhex(value))
            elif name == "listen_port":
                self.port = int(value)
            else:
                assert name == "fwmark"
                self.mark = int(value)
        for block in blocks[1:]:
            self._set_peer(block.split())

    def _set_peer(self, lines: list[str]) -> None:
        key = NodePublic(bytes.fromhex(lines[0]))
        if "remove=true" in lines:
            self.peers.pop(key, None)
            return
        if "update_only=true" in lines and key not in self.peers:
            return
        peer = self.peers.get(key, PeerStatus())
        allowed = frozenset() if "replace_allowed_ips=true" in lines else peer.allowed_ips
        endpoint = peer.endpoint
        for name, _, value in (line.partition("=") for line in lines[1:]):
            if name == "allowed_ip":
                allowed |= {value}
            elif name == "endpoint":
                host, _, port = value.rpartition(":")
                endpoint = (host.strip("[]"), int(port))
        self.peers[key] = PeerStatus(endpoint=endpoint, allowed_ips=allowed)


def answer_to_get(
    private: NodePrivate | None, port: int, mark: int, peers: dict[NodePublic, PeerStatus]
) -> bytes:
    """As wireguard-go writes it."""
    lines = [f"private_key={private.raw.hex()}"] if private else []
    lines += [f"listen_port={port}"] if port else []
    lines += [f"fwmark={mark}"] if mark else []
    for key, peer in peers.items():
        lines += [f"public_key={key.hex}", "preshared_key=" + "00" * 32, "protocol_version=1"]
        if peer.endpoint:
            host, number = peer.endpoint
            lines.append(f"endpoint=[{host}]:{number}" if ":" in host else f"endpoint={host}:{number}")
        lines += [f"last_handshake_time_sec={int(peer.last_handshake)}", "last_handshake_time_nsec=0"]
        lines += [f"tx_bytes={peer.tx_bytes}", f"rx_bytes={peer.rx_bytes}", "persistent_keepalive_interval=0"]
        lines += [f"allowed_ip={prefix}" for prefix in sorted(peer.allowed_ips)]
    return ("\n".join([*lines, "errno=0"]) + "\n\n").encode()


@given(
    st.none() | privates,
    ports,
    st.integers(0, 2**32 - 1),
    st.dictionaries(publics, peer_statuses, max_size=5),
)
def test_a_device_is_read_back_whole(
    private: NodePrivate | None, port: int, mark: int, peers: dict[NodePublic, PeerStatus]
) -> None:
    device = uapi.parse_device(answer_to_get(private, port, mark, peers))
    public = private.public() if private else None
    assert device.private_key == private
    assert device.status == EngineStatus(listen_port=port, public_key=public, fwmark=mark, peers=peers)


@given(privates, ports, st.integers(0, 2**32 - 1))
def test_settings_arrive_and_absent_ones_stay(private: NodePrivate, port: int, mark: int) -> None:
    device = Wireguard()
    device.set(uapi.serialize_device(private_key=private, listen_port=port, fwmark=mark))
    assert (device.private, device.port, device.mark) == (private, port, mark)
    device.set(uapi.serialize_device(fwmark=0))
    assert (device.private, device.port, device.mark) == (private, port, 0)


@given(peer_lists, peer_lists)
def test_a_plan_turns_the_old_peers_into_the_wanted_ones_and_keeps_live_endpoints(
    before: list[PeerConfig], after: list[PeerConfig]
) -> None:
    device = Wireguard()
    device.set(uapi.serialize_plan(plan_peers({}, before)))
    endpoints_before = {key: peer.endpoint for key, peer in device.peers.items()}
    device.set(uapi.serialize_plan(plan_peers(device.peers, after)))
    assert {key: peer.allowed_ips for key, peer in device.peers.items()} == {
        peer.key: frozenset(peer.allowed_ips) for peer in after
    }
    for peer in after:
        assert device.peers[peer.key].endpoint == endpoints_before.get(peer.key, peer.endpoint)
    assert plan_peers(device.peers, after).empty


@given(peer_configs, endpoints)
def test_an_endpoint_moves_only_a_peer_that_is_there(peer: PeerConfig, endpoint: tuple[str, int]) -> None:
    device = Wireguard()
    device.set(uapi.serialize_endpoint(peer.key, endpoint))
    assert not device.peers
    device.set(uapi.serialize_plan(PeerPlan(add=(peer,))))
    device.set(uapi.serialize_endpoint(peer.key, endpoint))
    assert device.peers[peer.key].endpoint == endpoint
    assert device.peers[peer.key].allowed_ips == frozenset(peer.allowed_ips)


def test_a_refusal_bears_its_number() -> None:
    uapi.parse_errno(b"errno=0\n\n")
    with pytest.raises(uapi.UapiError) as refused:
        uapi.parse_errno(b"errno=-98\n\n")
    assert refused.value.number == 98


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"listen_port=5\n\n",
        b"errno=x\n\n",
        b"no equals sign\nerrno=0\n\n",
        b"private_key=xyz\nerrno=0\n\n",
        b"private_key=00\nerrno=0\n\n",
        b"public_key=\nerrno=0\n\n",
        b"listen_port=\xff\nerrno=0\n\n",
        b"public_key=" + b"00" * 32 + b"\nendpoint=nowhere\nerrno=0\n\n",
        b"public_key=" + b"00" * 32 + b"\nrx_bytes=many\nerrno=0\n\n",
    ],
)
def test_a_malformed_answer_is_refused(answer: bytes) -> None:
    with pytest.raises(uapi.UapiError):
        uapi.parse_device(answer)


@given(st.binary(max_size=200))
def test_garbage_raises_the_declared_error_only(answer: bytes) -> None:
    for parse in (uapi.parse_device, uapi.parse_errno):
        with contextlib.suppress(uapi.UapiError):
            parse(answer)
