"""The server's name found by another way than the one that an exit node blocks."""

from __future__ import annotations

import socket
from pathlib import Path

import dns.message
import dns.rrset
import pytest

from client.control.dial import Dialer, Server
from client.dns.config import Upstreams
from client.dns.outside import addresses_outside, nameservers
from client.dns.upstream import Forwarder, NoAnswer
from client.errors import ControlError

RESOLVED = "nameserver 192.0.2.1\nnameserver 192.0.2.2#comment\nsearch example.org\n"


def files(folder: Path, *texts: str) -> list[Path]:
    paths = [folder / f"resolv{number}.conf" for number, _ in enumerate(texts)]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def test_the_first_file_with_resolvers_counts_and_our_own_is_none(tmp_path: Path) -> None:
    paths = files(tmp_path, "nameserver 100.100.100.100\n", "nameserver\nnameserver fe80::1%eth0\n", RESOLVED)
    assert [one.host for one in nameservers(paths)] == ["fe80::1"]
    assert [one.host for one in nameservers([paths[0], tmp_path / "none", paths[2]])] == ["192.0.2.1"]
    assert all(one.marked for one in nameservers(paths))
    assert nameservers(paths[:1]) == ()


class Answers(Forwarder):
    """Knows one name, which has an IPv4 address only."""

    async def ask(self, query: bytes, upstreams: Upstreams) -> bytes:  # type: ignore[override]
        asked = dns.message.from_wire(query)
        if asked.question[0].name.to_text() != "vpn.example.com.":
            raise NoAnswer("no")
        answer = dns.message.make_response(asked)
        if "A" in asked.question[0].to_text().split():
            answer.answer.append(dns.rrset.from_text(asked.question[0].name, 5, "IN", "A", "127.0.0.1"))
        return answer.to_wire()


async def test_a_name_is_found(tmp_path: Path) -> None:
    paths = files(tmp_path, RESOLVED)
    assert await addresses_outside("vpn.example.com", paths, Answers()) == ["127.0.0.1"]
    assert await addresses_outside("other.example.com", paths, Answers()) == []
    assert await addresses_outside("vpn.example.com", [], Answers()) == []


async def test_a_dialer_takes_the_other_way_only_when_the_usual_one_fails() -> None:
    async def no_dns(host: str, port: int) -> list[tuple[str, int]]:
        raise OSError("no DNS")

    async def outside(host: str) -> list[str]:
        return ["127.0.0.1"] if host == "vpn.example.com" else []

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        dialer = Dialer(resolve=no_dns, outside=outside)
        (await dialer.open(Server.from_url(f"http://vpn.example.com:{port}"))).close()
        with pytest.raises(ControlError, match="cannot find other"):
            await dialer.open(Server.from_url(f"http://other.example.com:{port}"))
