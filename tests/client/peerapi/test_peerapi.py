"""What peers may ask: who may, whatever they send, and what is left of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from client.errors import ClientError
from client.peerapi.rights import FILE_SEND
from client.peerapi.server import MAX_PER_PEER, usual_ports
from tests.client.fakes import node
from tests.client.peerapi.tailnet import ANN, OWN, Peers, answer_of, exit_node, peers_of, tailnet
from wire.netmap import FilterRule, PortRange

BOB4 = "100.64.0.3"
TAGGED4 = "100.64.0.4"
PUT_A = b"PUT /v0/put/a HTTP/1.1\r\nHost: peer\r\n"


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    async with peers_of(tmp_path, tailnet()) as made:
        yield made


class TestTheDoor:
    async def test_a_peer_is_greeted_by_name(self, peers: Peers) -> None:
        status, body = await peers.ask("GET", "/")
        assert status == 200
        assert b"laptop (100.64.0.2)" in body

    async def test_one_who_is_no_peer_gets_no_word(self, peers: Peers) -> None:
        for stranger in ("100.64.0.99", str(OWN), "192.0.2.1"):
            assert await peers.ask("GET", "/", came=stranger) == (0, b"")

    async def test_one_whose_key_has_expired_gets_no_word(self, tmp_path: Path) -> None:
        async with peers_of(tmp_path, tailnet(node(2, user=ANN, expired=True))) as peers:
            assert await peers.ask("GET", "/") == (0, b"")

    @pytest.mark.parametrize(
        "headers",
        ["Origin: http://evil.example\r\n", "Referer: http://evil.example/\r\n", "Sec-Fetch-Mode: cors\r\n"],
    )
    async def test_web_pages_are_kept_out(self, peers: Peers, headers: str) -> None:
        assert (await peers.ask("GET", "/", headers=headers))[0] == 403

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("100.64.0.1:40000", 200),
            ("peer", 200),
            ("100.64.0.1", 403),
            ("100.64.0.2:40000", 403),
            ("me.tail.example:40000", 403),
            ("100.64.0.1:x", 403),
            ("", 403),
            ("[", 403),
        ],
    )
    async def test_it_must_be_named_by_its_address(self, peers: Peers, host: str, status: int) -> None:
        raw = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        assert (await peers.say(raw))[0] == status

    @pytest.mark.parametrize(
        "raw",
        [
            b"nonsense\r\n\r\n",
            b"GET / HTTP/2\r\nHost: peer\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: peer\r\nHost: peer\r\n\r\n",
            PUT_A + b"Content-Length: -1\r\n\r\n",
            PUT_A + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            PUT_A + b"Transfer-Encoding: gzip\r\n\r\n",
            PUT_A + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
            PUT_A + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
        ],
    )
    async def test_what_is_no_request_is_refused(self, peers: Peers, raw: bytes) -> None:
        assert (await peers.say(raw))[0] == 400
        assert "a" not in peers.files()

    async def test_a_huge_head_is_refused(self, peers: Peers) -> None:
        for size in (20_000, 300_000):
            raw = b"GET / HTTP/1.1\r\nHost: peer\r\nX: " + b"x" * size + b"\r\n\r\n"
            assert (await peers.say(raw))[0] == 413

    async def test_a_connection_serves_many_requests(self, peers: Peers) -> None:
        reader, writer = await peers.connect()
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n")
            assert (await answer_of(reader))[0] == 200
        writer.close()

    async def test_a_peer_that_is_removed_is_cut_off_at_its_next_word(self, peers: Peers) -> None:
        reader, writer = await peers.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n")
        assert (await answer_of(reader))[0] == 200
        peers.netmap = tailnet(node(3, user=ANN))
        writer.write(b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n" * 2)
        statuses = [(await answer_of(reader))[0] for _ in range(2)]
        assert statuses[-1] == 0
        writer.close()

    async def test_one_peer_cannot_take_all_connections(self, peers: Peers) -> None:
        held = [await peers.connect() for _ in range(MAX_PER_PEER)]
        for _, writer in held:
            writer.write(b"GET / HTTP/1.1\r\n")
        for reader, writer in held:
            writer.write(b"Host: peer\r\n\r\n")
            assert (await answer_of(reader))[0] == 200
        assert await peers.ask("GET", "/") == (0, b"")
        assert (await peers.ask("GET", "/", came=BOB4))[0] == 200
        for _, writer in held:
            writer.close()

    async def test_unknown_paths_and_methods_are_named(self, peers: Peers) -> None:
        assert (await peers.ask("GET", "/v0/goroutines"))[0] == 404
        assert (await peers.ask("DELETE", "/"))[0] == 405
        assert (await peers.ask("POST", "/v0/put/a"))[0] == 405

    def test_the_port_is_always_the_same(self) -> None:
        ports = usual_ports(ip_address("100.101.102.103"))
        assert ports == usual_ports(ip_address("fd7a:115c:a1e0::6765:6667"))
        assert len(set(ports)) == 5
        assert all(0x8000 <= port <= 0xFFFF for port in ports)


class TestTaildrop:
    async def test_a_file_of_the_same_person_arrives(self, peers: Peers) -> None:
        assert (await peers.ask("PUT", "/v0/put/a%20b%C3%A9.txt", b"hello"))[0] == 200
        assert peers.files() == {"a bé.txt": b"hello"}
        assert [file.to_json() for file in await peers.api.taildrop.waiting()] == [
            {"Name": "a bé.txt", "Size": 5}
        ]

    async def test_it_may_come_in_chunks(self, peers: Peers) -> None:
        head = b"PUT /v0/put/a.txt HTTP/1.1\r\nHost: peer\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw = head + b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"
        assert (await peers.say(raw))[0] == 200
        assert peers.files() == {"a.txt": b"hello world"}

    async def test_others_may_not_send(self, peers: Peers) -> None:
        for stranger in (BOB4, TAGGED4):
            for method in ("PUT", "GET"):
                assert (await peers.ask(method, "/v0/put/a.txt", came=stranger))[0] == 403
        assert peers.files() == {}

    async def test_a_tailnet_may_forbid_it(self, peers: Peers) -> None:
        assert peers.netmap is not None
        peers.netmap = replace(peers.netmap, node=replace(peers.netmap.node, cap_map={}))
        assert (await peers.ask("PUT", "/v0/put/a.txt", b"x"))[0] == 403

    async def test_a_rule_may_let_others_send(self, tmp_path: Path) -> None:
        grant = {"Dsts": ["100.64.0.1/32"], "Caps": [FILE_SEND]}
        rule = FilterRule(sources=(BOB4,), cap_grants=(grant,))
        async with peers_of(tmp_path, tailnet(packet_filters={"base": (rule,)})) as peers:
            assert (await peers.ask("PUT", "/v0/put/a.txt", b"x", came=BOB4))[0] == 200
            assert (await peers.ask("PUT", "/v0/put/b.txt", b"x", came=TAGGED4))[0] == 403

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "..",
            ".",
            "a%2Fb",
            "..%2Fa",
            "a%00b",
            "a%0Ab",
            "a%5Cb",
            "a.partial",
            "a.deleted",
            "%20a",
            "%FF",
        ],
    )
    async def test_odd_names_are_refused(self, peers: Peers, name: str) -> None:
        assert (await peers.ask("PUT", f"/v0/put/{name}", b"x"))[0] == 400
        assert peers.files() == {}

    async def test_a_name_must_fit_the_disk(self, peers: Peers) -> None:
        assert (await peers.ask("PUT", f"/v0/put/{'x' * 250}", b"x"))[0] == 400
        assert (await peers.ask("PUT", f"/v0/put/{'x' * 240}", b"x"))[0] == 200

    async def test_a_name_that_is_taken_is_numbered(self, peers: Peers) -> None:
        for content in (b"one", b"two", b"three", b"two"):
            assert (await peers.ask("PUT", "/v0/put/a.tar.gz", content))[0] == 200
        assert peers.files() == {"a.tar.gz": b"one", "a (1).tar.gz": b"two", "a (2).tar.gz": b"three"}

    async def test_what_broke_off_is_resumed(self, peers: Peers) -> None:
        content = bytes(range(256)) * 1024
        reader, writer = await peers.connect()
        head = f"PUT /v0/put/big.bin HTTP/1.1\r\nHost: peer\r\nContent-Length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content[:150_000])
        await writer.drain()
        writer.write_eof()
        await reader.read()
        writer.close()
        assert await peers.api.taildrop.waiting() == []
        status, body = await peers.ask("GET", "/v0/put/big.bin")
        blocks = [json.loads(line) for line in body.splitlines()]
        assert status == 200
        assert sum(block["size"] for block in blocks) == 150_000
        assert blocks[0] == {
            "checksum": hashlib.sha256(content[:65536]).hexdigest(),
            "algo": "sha256",
            "size": 65536,
        }
        assert json.loads((await peers.ask("GET", "/v0/put/"))[1]) == ["big.bin.n2.partial"]
        rest = await peers.ask(
            "PUT", "/v0/put/big.bin", content[131_072:], headers="Range: bytes=131072-\r\n"
        )
        assert rest == (200, b"{}\n")
        assert peers.files() == {"big.bin": content}

    async def test_nobody_sees_what_another_began(self, tmp_path: Path) -> None:
        two = (node(2, user=ANN), node(5, user=ANN))
        async with peers_of(tmp_path, tailnet(*two)) as peers:
            peers.inbox.mkdir()
            (peers.inbox / "a.txt.n2.partial").write_bytes(b"secret")
            assert await peers.ask("GET", "/v0/put/a.txt", came="100.64.0.5") == (200, b"")
            assert json.loads((await peers.ask("GET", "/v0/put/", came="100.64.0.5"))[1]) == []

    async def test_an_offset_beyond_what_is_here_is_refused(self, peers: Peers) -> None:
        assert (await peers.ask("PUT", "/v0/put/a", b"x", headers="Range: bytes=5-\r\n"))[0] == 500
        for text in ("bytes=1-2", "bytes=-3", "lines=1-", "bytes=1-,2-"):
            assert (await peers.ask("PUT", "/v0/put/a", b"x", headers=f"Range: {text}\r\n"))[0] == 400
        assert (await peers.ask("PUT", "/v0/put/a", b"x", headers="Range: bytes=0-\r\n"))[0] == 200

    async def test_a_file_is_sent_once_at_a_time(self, peers: Peers) -> None:
        reader, writer = await peers.connect()
        writer.write(b"PUT /v0/put/a HTTP/1.1\r\nHost: peer\r\nContent-Length: 2\r\n\r\na")
        while "a.n2.partial" not in peers.files():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await peers.ask("PUT", "/v0/put/a", b"zz"))[0] == 409
        writer.write(b"b")
        assert (await answer_of(reader))[0] == 200
        writer.close()
        assert peers.files() == {"a": b"ab"}

    async def test_a_file_larger_than_the_disk_is_refused_at_once(self, peers: Peers) -> None:
        head = b"PUT /v0/put/a HTTP/1.1\r\nHost: peer\r\nContent-Length: 900000000000000\r\n\r\n"
        assert (await peers.say(head))[0] == 507

    async def test_a_waiter_wakes_up(self, peers: Peers) -> None:
        waiter = asyncio.create_task(peers.api.taildrop.waiting(60))
        await asyncio.sleep(0.05)
        await peers.ask("PUT", "/v0/put/a", b"x")
        async with asyncio.timeout(10):
            assert [file.name for file in await waiter] == ["a"]

    async def test_large_uploads_may_ask_first(self, peers: Peers) -> None:
        reader, writer = await peers.connect()
        writer.write(
            b"PUT /v0/put/a HTTP/1.1\r\nHost: peer\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"x")
        assert (await answer_of(reader))[0] == 200
        writer.close()


class TestDNS:
    QUESTION = b"a question"

    async def echo(self, question: bytes) -> bytes:
        return b"answer to " + question

    async def test_who_may_use_the_exit_node_may_look_up_names(self, tmp_path: Path) -> None:
        async with peers_of(tmp_path, exit_node(), resolve=self.echo) as peers:
            kind = "Content-Type: application/dns-message\r\n"
            for came in ("100.64.0.2", BOB4, TAGGED4):
                answer = await peers.ask("POST", "/dns-query", self.QUESTION, headers=kind, came=came)
                assert answer == (200, b"answer to a question")
            text = base64.urlsafe_b64encode(self.QUESTION).decode().rstrip("=")
            assert await peers.ask("GET", f"/dns-query?dns={text}") == (200, b"answer to a question")

    async def test_no_exit_node_looks_up_nothing(self, peers: Peers) -> None:
        assert (await peers.ask("GET", "/dns-query?dns=YQ"))[0] == 403

    async def test_whom_the_rules_keep_from_the_internet_gets_no_answer(self, tmp_path: Path) -> None:
        rule = FilterRule(sources=(BOB4,), destinations=(PortRange(ip="0.0.0.0/0", first=53, last=53),))
        shown = exit_node(packet_filters={"base": (rule,)})
        async with peers_of(tmp_path, shown, resolve=self.echo) as peers:
            assert (await peers.ask("GET", "/dns-query?dns=YQ", came=TAGGED4))[0] == 403
            assert (await peers.ask("GET", "/dns-query?dns=YQ", came=BOB4))[0] == 200

    async def test_devices_of_the_same_person_may_in_any_case(self, tmp_path: Path) -> None:
        async with peers_of(tmp_path, exit_node(packet_filters={}), resolve=self.echo) as peers:
            assert (await peers.ask("GET", "/dns-query?dns=YQ"))[0] == 200
            assert (await peers.ask("GET", "/dns-query?dns=YQ", came=BOB4))[0] == 403

    async def test_what_is_no_question_is_refused(self, tmp_path: Path) -> None:
        async def failing(question: bytes) -> bytes:
            raise ClientError("no resolver of this host answers")

        async with peers_of(tmp_path, exit_node(), resolve=failing) as peers:
            assert (await peers.ask("GET", "/dns-query"))[0] == 400
            assert (await peers.ask("GET", "/dns-query?dns=!"))[0] == 400
            assert (await peers.ask("POST", "/dns-query", b"x"))[0] == 415
            kind = "Content-Type: application/dns-message\r\n"
            assert (await peers.ask("POST", "/dns-query", b"x" * 70_000, headers=kind))[0] == 413
            assert (await peers.ask("GET", "/dns-query?dns=YQ"))[0] == 500


async def test_with_shields_up_it_is_there_for_devices_of_the_same_person(tmp_path: Path) -> None:
    async def echo(question: bytes) -> bytes:
        return question

    async with peers_of(tmp_path, exit_node(), resolve=echo) as peers:
        asked = [("PUT", "/v0/put/a", b"content"), ("GET", "/dns-query?dns=YQ", b"")]
        for shields_up, strangers in ((False, 200), (True, 403)):
            peers.shields_up = shields_up
            for method, path, body in asked:
                assert (await peers.ask(method, path, body))[0] == 200
            assert (await peers.ask(*asked[1], came=BOB4))[0] == strangers


async def test_the_server_is_told_where_it_is(tmp_path: Path) -> None:
    async with peers_of(tmp_path, exit_node()) as peers:
        told = [service.to_json() for service in peers.api.services()]
        assert told == [
            {"Proto": "peerapi4", "Port": peers.port},
            {"Proto": "peerapi-dns-proxy", "Port": 1},
        ]
        await peers.api.serve_on([])
        assert peers.api.services() == ()
        assert peers.api.doors == frozenset()
        await peers.api.serve_on([OWN])
