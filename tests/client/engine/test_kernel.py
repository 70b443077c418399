"""The kernel engine's bytes, through the netlink library's own encoder and decoder (no module needed)."""

from __future__ import annotations

import base64
import os
from typing import Any

from pyroute2.netlink.generic.wireguard import AsyncWireGuard, wgmsg

from client.engine.kernel import parse_device, peer_request
from client.wireguard import EngineStatus, PeerConfig, PeerStatus
from wire.keys import NodePrivate

KEY = NodePrivate.generate(bytes(range(32)))
PEER, OTHER = (NodePrivate.generate(os.urandom(32)).public() for _ in range(2))
CONFIG = PeerConfig(key=PEER, allowed_ips=("100.64.0.2/32", "fd7a::2/128"), endpoint=("2001:db8::1", 5))


def decoded(*attributes: list[Any]) -> wgmsg:
    """A message as the kernel would send it."""
    message = wgmsg()
    message["attrs"] += attributes
    message.encode()
    answer = wgmsg(message.data)
    answer.decode()
    return answer


def as_sent(request: dict[str, Any]) -> wgmsg:
    """What the library puts on the wire for a peer's settings."""
    message = wgmsg()
    AsyncWireGuard._wg_set_peer(_Checks(), message, request)
    return decoded(*message["attrs"])


class _Checks(AsyncWireGuard):  # the library's key checks without its socket
    def __init__(self) -> None:
        pass


def piece(key: bytes, *attributes: list[Any]) -> dict[str, Any]:
    return {"attrs": [["WGPEER_A_PUBLIC_KEY", base64.b64encode(key).decode()], *attributes]}


def test_an_interface_without_a_key_is_read() -> None:
    private, status = parse_device([decoded(["WGDEVICE_A_LISTEN_PORT", 0])])
    assert (private, status) == (b"", EngineStatus())


def test_a_device_in_several_messages_is_read_whole() -> None:
    handshake = {"tv_sec": 1_700_000_000, "tv_nsec": 500_000_000}
    first = decoded(
        ["WGDEVICE_A_PRIVATE_KEY", base64.b64encode(KEY.raw).decode()],
        ["WGDEVICE_A_LISTEN_PORT", 41641],
        ["WGDEVICE_A_FWMARK", 0x80000],
        [
            "WGDEVICE_A_PEERS",
            [
                piece(
                    PEER.raw,
                    ["WGPEER_A_ENDPOINT", {"addr": "192.0.2.1", "port": 7}],
                    ["WGPEER_A_RX_BYTES", 10],
                    ["WGPEER_A_TX_BYTES", 20],
                    ["WGPEER_A_LAST_HANDSHAKE_TIME", handshake],
                )
            ],
        ],
    )
    second = decoded(["WGDEVICE_A_PEERS", [piece(PEER.raw), piece(OTHER.raw)]])
    private, status = parse_device([first, second])
    assert private == KEY.raw
    assert status == EngineStatus(
        listen_port=41641,
        public_key=KEY.public(),
        fwmark=0x80000,
        peers={
            PEER: PeerStatus(
                endpoint=("192.0.2.1", 7), rx_bytes=10, tx_bytes=20, last_handshake=1_700_000_000.5
            ),
            OTHER: PeerStatus(),
        },
    )


def test_a_peers_settings_come_back_from_the_wire() -> None:
    _, status = parse_device([as_sent(peer_request(CONFIG, known=False))])
    assert status.peers == {
        PEER: PeerStatus(endpoint=("2001:db8::1", 5), allowed_ips=frozenset(CONFIG.allowed_ips))
    }


def test_a_known_peer_keeps_its_endpoint() -> None:
    request = peer_request(CONFIG, known=True)
    assert request["update_only"]
    assert request["replace_allowed_ips"]
    assert "endpoint_addr" not in request
