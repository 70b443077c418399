"""Classic BPF programs that let STUN answers and disco for one UDP port through, and nothing else.

A raw IPv4 socket's data begins at the IP header, a raw IPv6 socket's at the UDP header. Source:
linux/filter.h, Documentation/networking/filter.rst.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import NamedTuple

from client.magicsock.udp import UDP_HEADER_BYTES
from wire import disco, stun

SO_ATTACH_FILTER = 26
LD_WORD_IND, LD_HALF_IND, LD_HALF_ABS, LDX_HEADER, LDX_IMM = 0x40, 0x48, 0x28, 0xB1, 0x01
JUMP_EQUAL, JUMP_SET, RETURN = 0x15, 0x45, 0x06
ACCEPT_BYTES = 0x40000
NOT_FIRST_FRAGMENT_OR_MORE = 0x3FFF

DISCO_HEAD = int.from_bytes(disco.MAGIC[:4], "big")
DISCO_TAIL = int.from_bytes(disco.MAGIC[4:6], "big")
STUN_SUCCESS = int.from_bytes(stun.BINDING_SUCCESS, "big")
STUN_COOKIE = int.from_bytes(stun.COOKIE, "big")


class Instruction(NamedTuple):
    """One ``struct sock_filter``; jumps count the instructions to skip."""

    code: int
    if_true: int = 0
    if_false: int = 0
    operand: int = 0


def _payload_filter(port: int) -> list[Instruction]:
    """X holds where the UDP header begins. The last two instructions are accept and drop."""
    return [
        Instruction(LD_HALF_IND, operand=2),
        Instruction(JUMP_EQUAL, 0, 9, port),
        Instruction(LD_WORD_IND, operand=UDP_HEADER_BYTES),
        Instruction(JUMP_EQUAL, 0, 2, DISCO_HEAD),
        Instruction(LD_HALF_IND, operand=UDP_HEADER_BYTES + 4),
        Instruction(JUMP_EQUAL, 4, 5, DISCO_TAIL),
        # Not disco: a STUN success response has its type in two bytes, two bytes of length, then the cookie.
        Instruction(LD_HALF_IND, operand=UDP_HEADER_BYTES),
        Instruction(JUMP_EQUAL, 0, 3, STUN_SUCCESS),
        Instruction(LD_WORD_IND, operand=UDP_HEADER_BYTES + 4),
        Instruction(JUMP_EQUAL, 0, 1, STUN_COOKIE),
        Instruction(RETURN, operand=ACCEPT_BYTES),
        Instruction(RETURN, operand=0),
    ]


def ipv4_filter(port: int) -> list[Instruction]:
    """Fragments are left out: their rest is not in this packet."""
    tail = _payload_filter(port)
    return [
        Instruction(LD_HALF_ABS, operand=6),
        Instruction(JUMP_SET, len(tail), 0, NOT_FIRST_FRAGMENT_OR_MORE),
        Instruction(LDX_HEADER, operand=0),
        *tail,
    ]


def ipv6_filter(port: int) -> list[Instruction]:
    return [Instruction(LDX_IMM, operand=0), *_payload_filter(port)]


def attach(sock: socket.socket, program: list[Instruction]) -> None:
    """Raises :class:`OSError`. What arrived before this call is still in the socket: drain it."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(buffer))
    )
