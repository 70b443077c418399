"""WireGuard's cross-platform configuration protocol, as bytes. Source: https://www.wireguard.com/xplatform/

Requests and answers are lines ``key=value``, ended by an empty line; keys are lowercase hex.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from client.engine.base import PeerPlan
from client.wireguard import Address, EngineStatus, PeerConfig, PeerStatus
from wire.errors import WireError
from wire.keys import NodePrivate, NodePublic

GET = b"get=1\n\n"
END = b"\n\n"
NANOSECONDS = 1_000_000_000

Block = dict[str, list[str]]


class UapiError(Exception):
    """The answer is not one, or says that the request failed. ``number`` is an errno, 0 = malformed."""

    def __init__(self, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.number = number


@dataclass(frozen=True, slots=True)
class Device:
    """The answer to ``get=1``: what runs, and the private key that runs it (for comparison only)."""

    status: EngineStatus
    private_key: NodePrivate | None = None


def serialize_device(
    *, private_key: NodePrivate | None = None, listen_port: int | None = None, fwmark: int | None = None
) -> bytes:
    """A ``set=1`` of the given values; the others stay."""
    lines = ["set=1"]
    if private_key is not None:
        lines.append(f"private_key={private_key.raw.hex()}")
    if listen_port is not None:
        lines.append(f"listen_port={listen_port}")
    if fwmark is not None:
        lines.append(f"fwmark={fwmark}")
    return _message(lines)


def serialize_plan(plan: PeerPlan) -> bytes:
    """A ``set=1`` that carries out ``plan`` in one transaction."""
    lines = ["set=1"]
    for key in plan.remove:
        lines += [f"public_key={key.hex}", "remove=true"]
    for peer in plan.add:
        lines += _peer_lines(peer, known=False)
    for peer in plan.change:
        lines += _peer_lines(peer, known=True)
    return _message(lines)


def serialize_endpoint(peer: NodePublic, endpoint: Address) -> bytes:
    """A ``set=1`` that moves one peer, and does nothing when it is not there."""
    return _message(
        ["set=1", f"public_key={peer.hex}", "update_only=true", f"endpoint={_host_port(endpoint)}"]
    )


def _peer_lines(peer: PeerConfig, *, known: bool) -> Iterator[str]:
    yield f"public_key={peer.key.hex}"
    if known:
        yield "update_only=true"
    elif peer.endpoint is not None:
        yield f"endpoint={_host_port(peer.endpoint)}"
    yield "replace_allowed_ips=true"
    for prefix in peer.allowed_ips:
        yield f"allowed_ip={prefix}"


def _message(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n\n").encode()


def _host_port(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parse_host_port(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise UapiError(f"endpoint {text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def parse_errno(answer: bytes) -> None:
    """Raises :class:`UapiError` unless the answer ends with ``errno=0``."""
    for name, value in _pairs(answer):
        if name == "errno":
            number = _integer(value)
            if number:
                raise UapiError(f"WireGuard refuses the configuration (errno {number})", abs(number))
            return
    raise UapiError("WireGuard's answer has no errno")


def parse_device(answer: bytes) -> Device:
    """The answer to ``get=1``. Unknown lines are skipped; raises :class:`UapiError`."""
    parse_errno(answer)
    device, *peers = _blocks(answer)
    private = NodePrivate(_key_bytes(device["private_key"][0])) if "private_key" in device else None
    status = EngineStatus(
        listen_port=_integer(_last(device, "listen_port")),
        fwmark=_integer(_last(device, "fwmark")),
        public_key=private.public() if private is not None else None,
        peers={NodePublic(_key_bytes(_last(peer, "public_key"))): _peer_status(peer) for peer in peers},
    )
    return Device(status, private)


def _blocks(answer: bytes) -> list[Block]:
    """The device's lines, then each peer's, by name (a name may come more than once)."""
    blocks: list[Block] = [{}]
    for name, value in _pairs(answer):
        if name == "public_key":
            blocks.append({})
        blocks[-1].setdefault(name, []).append(value)
    return blocks


def _last(block: Block, name: str, absent: str = "0") -> str:
    return block[name][-1] if name in block else absent


def _peer_status(block: Block) -> PeerStatus:
    endpoint = _last(block, "endpoint", "")
    seconds, fraction = (_integer(_last(block, f"last_handshake_time_{unit}")) for unit in ("sec", "nsec"))
    return PeerStatus(
        endpoint=_parse_host_port(endpoint) if endpoint else None,
        rx_bytes=_integer(_last(block, "rx_bytes")),
        tx_bytes=_integer(_last(block, "tx_bytes")),
        last_handshake=seconds + fraction / NANOSECONDS,
        allowed_ips=frozenset(block.get("allowed_ip", ())),
    )


def _pairs(answer: bytes) -> Iterator[tuple[str, str]]:
    try:
        lines = answer.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise UapiError("WireGuard's answer is not ASCII") from error
    for line in lines:
        if line:
            name, equals, value = line.partition("=")
            if not equals:
                raise UapiError("a line of WireGuard's answer is not key=value")
            yield name, value


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UapiError(f"{text[:40]!r} in WireGuard's answer is not a number") from error


def _key_bytes(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
        NodePublic(raw)
    except (ValueError, WireError) as error:
        raise UapiError("a key in WireGuard's answer is not 64 hex digits") from error
    return raw
