"""DERP: packets between nodes by way of a relay that knows them by their node keys only.

Frames are type (1 byte) ‖ length (4, big-endian) ‖ payload. Source: tailscale derp/derp.go,
derp/derp_client.go, derp/derpserver.
"""

from __future__ import annotations

import ipaddress
import json
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

from wire.errors import FrameError, HandshakeError, MessageError
from wire.keys import BOX_OVERHEAD, KEY_BYTES, NodePrivate, NodePublic

MAGIC = b"DERP\xf0\x9f\x94\x91"
PROTOCOL_VERSION = 2
HEADER_BYTES = 5
MAX_PACKET_BYTES = 64 * 1024
MAX_FRAME_BYTES = 1024 * 1024
MAX_SERVER_KEY_BYTES = 1024
MAX_CLIENT_INFO_BYTES = 256 * 1024
MAX_PING_BYTES = 1000
PING_BYTES = 8
MESH_KEY_HEX = 64
UNSPECIFIED = "0.0.0.0"  # noqa: S104 - an address in a message, not one to bind


class FrameType(IntEnum):
    SERVER_KEY = 0x01
    CLIENT_INFO = 0x02
    SERVER_INFO = 0x03
    SEND_PACKET = 0x04
    RECV_PACKET = 0x05
    KEEP_ALIVE = 0x06
    NOTE_PREFERRED = 0x07
    PEER_GONE = 0x08
    PEER_PRESENT = 0x09
    FORWARD_PACKET = 0x0A
    WATCH_CONNS = 0x10
    CLOSE_PEER = 0x11
    PING = 0x12
    PONG = 0x13
    HEALTH = 0x14
    RESTARTING = 0x15


class PeerGoneReason(IntEnum):
    DISCONNECTED = 0
    NOT_HERE = 1


class PeerPresentFlags(IntFlag):
    REGULAR = 1
    MESH = 2
    PROBER = 4
    NOT_IDEAL = 8


def encode_frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">BI", kind, len(payload)) + payload


class FrameDecoder:
    """Bytes cut anywhere in, (type, payload) out. Unknown types are handed on: callers skip them."""

    def __init__(self, max_frame: int = MAX_FRAME_BYTES) -> None:
        self._max = max_frame
        self._buffer = bytearray()

    @property
    def buffered(self) -> bytes:
        """Bytes of a frame that is not whole yet."""
        return bytes(self._buffer)

    def receive(self, data: bytes) -> list[tuple[int, bytes]]:
        """Raises :class:`FrameError` for a frame over the bound."""
        self._buffer += data
        frames: list[tuple[int, bytes]] = []
        at, size = 0, len(self._buffer)
        while size - at >= HEADER_BYTES:
            kind, length = struct.unpack_from(">BI", self._buffer, at)
            if length > self._max:
                raise FrameError(f"DERP frame of {length} bytes (at most {self._max})")
            end = at + HEADER_BYTES + length
            if end > size:
                break
            frames.append((kind, bytes(self._buffer[at + HEADER_BYTES : end])))
            at = end
        if at:
            del self._buffer[:at]
        return frames


# --- handshake -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientInfo:
    """What a client says of itself; ``mesh_key`` is 64 hex digits or empty."""

    version: int = PROTOCOL_VERSION
    mesh_key: str = ""
    can_ack_pings: bool = False
    is_prober: bool = False
    app_name: str = ""

    def __repr__(self) -> str:
        return f"ClientInfo(version={self.version}, mesh={bool(self.mesh_key)})"

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {"version": self.version, "CanAckPings": self.can_ack_pings}
        if self.mesh_key:
            content["meshKey"] = self.mesh_key
        if self.is_prober:
            content["IsProber"] = True
        return content

    @classmethod
    def parse(cls, data: bytes) -> ClientInfo:
        content = _object(data)
        lower = {name.lower(): value for name, value in content.items()}
        mesh = lower.get("meshkey", "")
        return cls(
            version=lower["version"] if isinstance(lower.get("version"), int) else 0,
            mesh_key=mesh if isinstance(mesh, str) and len(mesh) == MESH_KEY_HEX else "",
            can_ack_pings=lower.get("canackpings") is True,
            is_prober=lower.get("isprober") is True,
            app_name=str(lower.get("appname", ""))[:200],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a relay says: its version, and limits by which the client throttles itself."""

    version: int = PROTOCOL_VERSION
    bytes_per_second: int = 0
    bytes_burst: int = 0

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {"version": self.version}
        if self.bytes_per_second:
            content["TokenBucketBytesPerSecond"] = self.bytes_per_second
            content["TokenBucketBytesBurst"] = self.bytes_burst
        return content

    @classmethod
    def parse(cls, data: bytes) -> ServerInfo:
        content = _object(data)

        def number(name: str) -> int:
            value = content.get(name, 0)
            return value if isinstance(value, int) and value >= 0 else 0

        return cls(
            version=number("version"),
            bytes_per_second=number("TokenBucketBytesPerSecond"),
            bytes_burst=number("TokenBucketBytesBurst"),
        )


def _object(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MessageError("DERP info is not JSON") from error
    if not isinstance(content, dict):
        raise MessageError("DERP info is not an object")
    return content


def server_key_frame(server: NodePublic) -> bytes:
    """The relay's first frame."""
    return encode_frame(FrameType.SERVER_KEY, MAGIC + server.raw)


def parse_server_key(payload: bytes) -> NodePublic:
    """Raises :class:`HandshakeError`; trailing bytes are tolerated."""
    if len(payload) < len(MAGIC) + KEY_BYTES or not payload.startswith(MAGIC):
        raise HandshakeError("the relay's first frame is not its key")
    return NodePublic(payload[len(MAGIC) : len(MAGIC) + KEY_BYTES])


def client_info_frame(node: NodePrivate, server: NodePublic, nonce: bytes, info: ClientInfo) -> bytes:
    """The client's only handshake frame; ``nonce`` is 24 random bytes."""
    sealed = node.seal_to(server, nonce, json.dumps(info.to_json()).encode())
    return encode_frame(FrameType.CLIENT_INFO, node.public().raw + sealed)


def parse_client_info(payload: bytes, server: NodePrivate) -> tuple[NodePublic, ClientInfo]:
    """Who connects, proven by the box; raises ``WireError``."""
    if not KEY_BYTES + BOX_OVERHEAD <= len(payload) <= MAX_CLIENT_INFO_BYTES:
        raise HandshakeError("ClientInfo has an impossible length")
    client = NodePublic(payload[:KEY_BYTES])
    return client, ClientInfo.parse(server.open_from(client, payload[KEY_BYTES:]))


def server_info_frame(server: NodePrivate, client: NodePublic, nonce: bytes, info: ServerInfo) -> bytes:
    return encode_frame(
        FrameType.SERVER_INFO, server.seal_to(client, nonce, json.dumps(info.to_json()).encode())
    )


def parse_server_info(payload: bytes, node: NodePrivate, server: NodePublic) -> ServerInfo:
    return ServerInfo.parse(node.open_from(server, payload))


class ClientHandshake:
    """A client's handshake: feed frames until :attr:`done`. ``nonce`` is 24 random bytes."""

    def __init__(self, node: NodePrivate, nonce: bytes, info: ClientInfo | None = None) -> None:
        self._node = node
        self._nonce = nonce
        self._info = info or ClientInfo(can_ack_pings=True)
        self.server: NodePublic | None = None
        self.server_info: ServerInfo | None = None

    @property
    def done(self) -> bool:
        return self.server_info is not None

    def receive(self, kind: int, payload: bytes) -> bytes:
        """One frame from the relay; returns what to send. Raises ``WireError``."""
        if self.server is None:
            if kind != FrameType.SERVER_KEY or len(payload) > MAX_SERVER_KEY_BYTES:
                raise HandshakeError("the relay did not begin with its key")
            self.server = parse_server_key(payload)
            return client_info_frame(self._node, self.server, self._nonce, self._info)
        if kind == FrameType.SERVER_INFO:
            self.server_info = parse_server_info(payload, self._node, self.server)
        return b""


# --- payloads --------------------------------------------------------------------------------------------


def send_packet_frame(destination: NodePublic, packet: bytes) -> bytes:
    """Client to relay; raises :class:`FrameError` over 64 KiB."""
    if len(packet) > MAX_PACKET_BYTES:
        raise FrameError(f"packet of {len(packet)} bytes (at most {MAX_PACKET_BYTES})")
    return struct.pack(">BI", FrameType.SEND_PACKET, KEY_BYTES + len(packet)) + destination.raw + packet


def recv_packet_frame(source: NodePublic, packet: bytes) -> bytes:
    return struct.pack(">BI", FrameType.RECV_PACKET, KEY_BYTES + len(packet)) + source.raw + packet


def forward_packet_frame(source: NodePublic, destination: NodePublic, packet: bytes) -> bytes:
    return encode_frame(FrameType.FORWARD_PACKET, source.raw + destination.raw + packet)


def parse_keyed(payload: bytes) -> tuple[NodePublic, bytes]:
    """A payload that begins with a key (Send-, RecvPacket, ClosePeer): the key and the rest."""
    if len(payload) < KEY_BYTES:
        raise FrameError("a key is cut off")
    return NodePublic(payload[:KEY_BYTES]), payload[KEY_BYTES:]


def parse_forward(payload: bytes) -> tuple[NodePublic, NodePublic, bytes]:
    """Source, destination, packet."""
    source, rest = parse_keyed(payload)
    destination, packet = parse_keyed(rest)
    return source, destination, packet


def note_preferred_frame(home: bool) -> bytes:
    return encode_frame(FrameType.NOTE_PREFERRED, b"\x01" if home else b"\x00")


def peer_gone_frame(peer: NodePublic, reason: PeerGoneReason) -> bytes:
    return encode_frame(FrameType.PEER_GONE, peer.raw + bytes([reason]))


def parse_peer_gone(payload: bytes) -> tuple[NodePublic, int]:
    peer, rest = parse_keyed(payload)
    return peer, rest[0] if rest else PeerGoneReason.DISCONNECTED


@dataclass(frozen=True, slots=True)
class PeerPresent:
    """Mesh: a client connected over there."""

    peer: NodePublic
    ip: str = UNSPECIFIED
    port: int = 0
    flags: PeerPresentFlags = PeerPresentFlags.REGULAR

    def frame(self) -> bytes:
        ip = ipaddress.ip_address(self.ip)
        packed = b"\0" * 10 + b"\xff\xff" + ip.packed if ip.version == 4 else ip.packed
        body = self.peer.raw + packed + struct.pack(">HB", self.port, self.flags)
        return encode_frame(FrameType.PEER_PRESENT, body)

    @classmethod
    def parse(cls, payload: bytes) -> PeerPresent:
        peer, rest = parse_keyed(payload)
        if len(rest) < 18:
            return cls(peer)
        ip = ipaddress.IPv6Address(rest[:16])
        port = int.from_bytes(rest[16:18], "big")
        flags = PeerPresentFlags(rest[18] & 0x0F) if len(rest) > 18 else PeerPresentFlags.REGULAR
        return cls(peer, str(ip.ipv4_mapped or ip), port, flags)


def ping_frame(payload: bytes) -> bytes:
    return encode_frame(FrameType.PING, payload)


def pong_frame(payload: bytes) -> bytes:
    return encode_frame(FrameType.PONG, payload)
