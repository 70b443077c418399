"""A fake internet host that tells whoever asks from where it was asked, and a watch for what leaks."""

from __future__ import annotations

import json
import selectors
import socket
import threading
from types import TracebackType
from typing import Self

import dns.message
import dns.rdatatype
import dns.rrset

from tests.lab.net import INTERNET4, INTERNET6, LabError, Namespace, Router
from tests.lab.processes import wait_for

# Addresses for documentation, so that nobody takes them for a private network (RFC 5737, RFC 3849).
WEB4, WEB6 = "203.0.113.9", "2001:db8:f00d::9"
WEB_PORT, DNS_PORT = 80, 53
ASK_SECONDS = 2.0
IN_VAIN_SECONDS = 0.7  # for what should not be answered
NAME = "where.example."


class Mirror:
    """Listens on TCP port 80 and UDP port 53 of a namespace's addresses; ``seen`` tells who came."""

    def __init__(self, namespace: Namespace, *addresses: str) -> None:
        self.seen: set[tuple[str, str]] = set()  # ("tcp" or "dns", address)
        self._selector = selectors.DefaultSelector()
        self._sockets = []
        with namespace.entered():
            for address in addresses:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                self._sockets.append(socket.create_server((address, WEB_PORT), family=family))
                datagrams = socket.socket(family, socket.SOCK_DGRAM)
                datagrams.bind((address, DNS_PORT))
                self._sockets.append(datagrams)
        for sock in self._sockets:
            self._selector.register(sock, selectors.EVENT_READ)
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
        self._selector.close()
        for sock in self._sockets:
            sock.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(0.1):
                sock: socket.socket = key.fileobj  # type: ignore[assignment]
                if sock.type == socket.SOCK_STREAM:
                    self._answer_tcp(sock)
                else:
                    self._answer_dns(sock)

    def _answer_tcp(self, listener: socket.socket) -> None:
        connection, peer = listener.accept()
        with connection:
            self.seen.add(("tcp", peer[0]))
            connection.sendall(peer[0].encode())

    def _answer_dns(self, sock: socket.socket) -> None:
        """Whatever the name: the address that asks."""
        data, peer = sock.recvfrom(4096)
        self.seen.add(("dns", peer[0]))
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.answer.append(dns.rrset.from_text(query.question[0].name, 0, "IN", "TXT", peer[0]))
        sock.sendto(answer.to_wire(), peer)


class Internet(Mirror):
    """One with public addresses, in the middle of the lab's internet."""

    def __init__(self, namespace: Namespace) -> None:
        for address in (f"{WEB4}/32", f"{WEB6}/128"):
            namespace.run("ip", "addr", "replace", address, "dev", "lo")
        super().__init__(namespace, WEB4, WEB6)


def asked_from(namespace: Namespace, address: str, *, seconds: float = ASK_SECONDS) -> str:
    """As whom the internet sees a TCP connection from ``namespace``; :class:`LabError` when it does not."""
    with namespace.entered():
        try:
            with socket.create_connection((address, WEB_PORT), timeout=seconds) as connection:
                return connection.recv(100).decode()
        except OSError as error:
            raise LabError(f"{namespace.short} does not reach {address}: {error}") from error


def reaches(namespace: Namespace, address: str, *, seconds: float = ASK_SECONDS) -> bool:
    """Whether a TCP connection from ``namespace`` is answered."""
    try:
        return bool(asked_from(namespace, address, seconds=seconds))
    except LabError:
        return False


def dns_asked_from(namespace: Namespace, server: str = WEB4, *, seconds: float = ASK_SECONDS) -> str:
    """As whom a name server on the internet sees ``namespace``."""
    query = dns.message.make_query(NAME, dns.rdatatype.TXT)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with namespace.entered():
        sock = socket.socket(family, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(seconds)
        try:
            sock.sendto(query.to_wire(), (server, DNS_PORT))
            answer = dns.message.from_wire(sock.recv(4096))
        except OSError as error:
            raise LabError(f"{namespace.short} gets no answer from {server}: {error}") from error
    return str(answer.answer[0][0]).strip('"')


def seen_as(namespace: Namespace, *expected: str, seconds: float = 20.0) -> None:
    """Wait until the internet sees a node with these addresses, by TCP of each family and by DNS."""
    for address in expected:
        target = WEB6 if ":" in address else WEB4
        what = f"{namespace.short} is seen as {address}"
        wait_for(what, lambda to=target, want=address: asked_from(namespace, to) == want, seconds=seconds)
        assert dns_asked_from(namespace, target) == address


def gets_nowhere(namespace: Namespace) -> None:
    """Neither TCP nor DNS gets an answer from the internet, in either family."""
    for target in (WEB4, WEB6):
        for ask in (asked_from, dns_asked_from):
            try:
                answer = ask(namespace, target, seconds=IN_VAIN_SECONDS)
            except LabError:
                continue
            raise LabError(f"{namespace.short} reached {target} as {answer}")


WATCH = """
define near4 = {{ {segment4}.0/24, 192.168.0.0/16, 224.0.0.0/4 }}
define near6 = {{ {segment6}::/64, 2001:db8:{number}::/64, fe80::/10, ff00::/8 }}
table inet watch {{
  counter leaked {{ }}
  counter names {{ }}
  chain way {{
    type filter hook prerouting priority -400; policy accept;
    iifname "lan" ip saddr {host4} ip daddr != $near4 counter name leaked
    iifname "lan" ip6 saddr {host6} ip6 daddr != $near6 counter name leaked
    iifname "lan" meta l4proto {{ tcp, udp }} th dport 53 counter name names
  }}
}}
"""


class Watch:
    """Counts, on a router, what one host sends in clear: to beyond the lab, and to any DNS port.

    The segment itself is where relay, server and peers are; nothing else of a host in a tunnel may be seen.
    """

    def __init__(self, router: Router, host: Namespace) -> None:
        self.router = router.namespace
        self.clear()
        rules = WATCH.format(
            segment4=INTERNET4,
            segment6=INTERNET6,
            number=router.number,
            host4=host.address4,
            host6=host.address6,
        )
        self.router.run("nft", "-f", "-", stdin=rules)

    def counts(self) -> tuple[int, int]:
        """Packets that left in clear, and packets to a name server."""
        listed = json.loads(self.router.run("nft", "-j", "list", "counters", "table", "inet", "watch").stdout)
        found = {item["counter"]["name"]: item["counter"]["packets"] for item in listed["nftables"][1:]}
        return found["leaked"], found["names"]

    def clear(self) -> None:
        self.router.run("nft", "delete", "table", "inet", "watch", check=False)
