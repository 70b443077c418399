"""Counting flows: what nft is told, and what the kernel then counts of real packets."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence

import pytest

from client.errors import SetupError
from client.flows import table
from client.flows.table import Count, Ends, FlowTable, Reading, counting, read, set_names
from client.net.nft import list_nft
from tests.client.net.namespace import in_namespace

ICMP, TCP, UDP = 1, 6, 17
HERE = "127.0.0.1"
IP_HEADER, UDP_HEADERS = 20, 28


def test_every_set_of_a_generation_is_declared_bounded_and_used() -> None:
    script = counting("trenza0", 7)
    for name in set_names(7):
        assert sum(f" {name} {{ type" in line for line in script.splitlines()) == 1
        assert f"update @{name} {{" in script
    declared = [line for line in script.splitlines() if line.startswith("add set")]
    assert len(declared) == 8
    assert all("size " in line for line in declared)


def test_what_is_in_another_form_is_left_out() -> None:
    good = {"elem": {"val": {"concat": [TCP, "100.64.0.1", 22, "100.64.0.2", 4000]}, "counter": count(1, 60)}}
    plain = {"elem": {"val": {"concat": [ICMP, "100.64.0.1", "100.64.0.2"]}, "counter": count(2, 168)}}
    odd = [{"concat": [TCP, "a", 1, "b", 2]}, {"elem": {"val": {"concat": [TCP]}, "counter": count(1, 1)}}, 5]
    items = [
        {"metainfo": {}},
        {"set": {"name": "went4ports_0", "elem": [good, *odd]}},
        {"set": {"name": "came4_0", "elem": [plain]}},
        {"set": {"name": "came6_0"}},
        {"set": {"name": "went4ports_1", "elem": [plain]}},
    ]
    assert read(items, 0) == Reading(
        came={Ends(ICMP, "100.64.0.1", 0, "100.64.0.2", 0): Count(2, 168)},
        went={Ends(TCP, "100.64.0.1", 22, "100.64.0.2", 4000): Count(1, 60)},
    )


def count(packets: int, size: int) -> dict[str, int]:
    return {"packets": packets, "bytes": size}


async def test_a_closed_table_counts_nothing_and_asks_nobody() -> None:
    asked: list[Sequence[str]] = []

    async def call(words: Sequence[str], stdin: bytes) -> bytes:
        asked.append(words)
        return b""

    flows = FlowTable("trenza0", call=call)
    assert await flows.take() == Reading()
    assert asked == []


async def test_a_host_that_cannot_count_leaves_it_closed() -> None:
    async def call(words: Sequence[str], stdin: bytes) -> bytes:
        raise SetupError("nft refuses it")

    flows = FlowTable("trenza0", call=call)
    with pytest.raises(SetupError):
        await flows.open()
    assert not flows.is_open


@pytest.mark.root
class TestInTheKernel:
    @pytest.fixture(autouse=True)
    def _alone(self) -> Iterator[None]:
        with in_namespace():
            run("ip", "link", "set", "lo", "up")
            yield

    async def test_packets_are_counted_both_ways_and_once(self) -> None:
        flows = FlowTable("lo")
        await flows.open()
        port = send(3, b"x" * 100)
        run("ping", "-c", "2", "-i", "0.1", HERE)
        run("ping", "-c", "1", "::1")
        reading = await flows.take()
        datagrams = Ends(UDP, HERE, port, HERE, 9)
        for counts in (reading.came, reading.went):
            assert counts[datagrams] == Count(3, 3 * (UDP_HEADERS + 100))
            # Two requests, two answers, and complaints that nobody listens (8 bytes and the datagram).
            echoes, size = 4, 4 * (IP_HEADER + 64)
            complaints = counts[Ends(ICMP, HERE, 0, HERE, 0)].packets - echoes
            assert 0 <= complaints <= 3
            assert counts[Ends(ICMP, HERE, 0, HERE, 0)].bytes == size + complaints * (2 * UDP_HEADERS + 100)
            assert counts[Ends(58, "::1", 0, "::1", 0)].packets >= 2
        assert await flows.take() == Reading()
        again = send(1, b"y")
        assert (await flows.take()).went[Ends(UDP, HERE, again, HERE, 9)] == Count(1, UDP_HEADERS + 1)
        await flows.close()
        assert not [item for item in await list_nft("tables") if "table" in item]
        await flows.close()

    async def test_another_interface_is_not_counted(self) -> None:
        flows = FlowTable("trenza0")
        await flows.open()
        send(3, b"x")
        assert await flows.take() == Reading()

    async def test_what_a_full_set_has_no_place_for_is_counted_without_ports(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(table, "MAX_WITH_PORTS", 2)
        flows = FlowTable("lo")
        await flows.open()
        for _ in range(5):
            send(1, b"x")
        went = {ends: found for ends, found in (await flows.take()).went.items() if ends.protocol == UDP}
        assert sum(ends.source_port > 0 for ends in went) == 2
        assert went[Ends(UDP, HERE, 0, HERE, 0)].packets == 3
        assert sum(found.packets for found in went.values()) == 5

    async def test_a_table_that_somebody_flushed_is_there_again(self) -> None:
        flows = FlowTable("lo")
        await flows.open()
        run("nft", "flush", "ruleset")
        assert await flows.take() == Reading()
        send(1, b"x")
        assert (await flows.take()).went

    async def test_opening_forgets_what_a_killed_daemon_left(self) -> None:
        await FlowTable("lo").open()
        send(1, b"x")
        flows = FlowTable("lo")
        await flows.open()
        assert await flows.take() == Reading()


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def send(times: int, content: bytes) -> int:
    """Datagrams to the discard port of loopback; the port that they came from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HERE, 0))
        for _ in range(times):
            sock.sendto(content, (HERE, 9))
        return int(sock.getsockname()[1])
