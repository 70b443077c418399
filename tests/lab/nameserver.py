"""Name servers of the lab: they know a few names, and remember what they were asked, and by whom."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.lab.net import ETC_NETNS, Namespace

PORT = 53


class NameServer:
    """UDP port 53 of an ``address`` of ``namespace``; ``asked`` are (name, asking address), newest last.

    Without an address it is every one of a host that has but one.
    """

    def __init__(self, namespace: Namespace, names: Mapping[str, str], address: str = "0.0.0.0") -> None:
        self.namespace, self.names = namespace, dict(names)
        self.asked: list[tuple[str, str]] = []
        with namespace.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.bind((address, PORT))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def was_asked(self, name: str) -> bool:
        return any(asked == name for asked, _ in self.asked)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            while not self._ended.is_set():
                if selector.select(0.1):
                    self._answer(*self._socket.recvfrom(4096))

    def _answer(self, data: bytes, peer: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked.append((name, peer[0]))
        answer = dns.message.make_response(query, recursion_available=True)
        if name not in self.names:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(question.name, 0, "IN", "A", self.names[name]))
        self._socket.sendto(answer.to_wire(), peer)


def resolv_conf(host: Namespace) -> str:
    """What a host's programs read."""
    return (ETC_NETNS / host.name / "resolv.conf").read_text()


def use_nameserver(host: Namespace, address: str) -> None:
    """Set up a host's DNS by hand, as DHCP would."""
    (ETC_NETNS / host.name / "resolv.conf").write_text(f"nameserver {address}\noptions timeout:2\n")


def look_up(
    host: Namespace, name: str, database: str = "ahostsv4", private: Mapping[str, Path] | None = None
) -> str:
    """The first line of what a host's own C library finds; empty = nothing."""
    done = host.run("getent", database, name, check=False, private=private)
    return done.stdout.splitlines()[0] if done.stdout else ""


def address_of(host: Namespace, name: str, private: Mapping[str, Path] | None = None) -> str:
    """The IPv4 address that a host's programs find; ``private`` as a client there has it."""
    return look_up(host, name, private=private).partition(" ")[0]
