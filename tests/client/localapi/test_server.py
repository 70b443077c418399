"""The local API's door: who may come in, and that whatever a browser could send stays outside."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import ClientError, PeerNotFound, SetupError
from client.http1 import parse_head
from client.localapi.client import LocalClient
from client.localapi.server import HOST, MAX_BODY_BYTES, Request, Server, check_headers
from tests.examples import examples

NOBODY = 65534
GOOD = f"Host: {HOST}\r\n"


class Daemon:
    """What stands behind the door: counts who got through."""

    def __init__(self) -> None:
        self.heard: list[Request] = []
        self.failure: Exception | None = None

    async def handle(self, request: Request) -> Any:
        self.heard.append(request)
        if self.failure is not None:
            raise self.failure
        return self._ticks() if request.path.endswith("/watch") else {"heard": request.path}

    async def _ticks(self) -> AsyncIterator[dict[str, Any]]:
        for number in range(3):
            yield {"tick": number}


@pytest.fixture
def behind() -> Daemon:
    return Daemon()


@pytest.fixture
async def door(tmp_path: Path, behind: Daemon) -> AsyncIterator[Server]:
    server = Server(tmp_path / "run" / "trenzad.sock", behind.handle, lambda: None)
    await server.start()
    yield server
    await server.close()
    assert not server.path.exists()


async def say(door: Server, raw: bytes) -> tuple[int, bytes]:
    """Send bytes as they are; the status and the body (0 when the connection just ends)."""
    reader, writer = await asyncio.open_unix_connection(str(door.path))
    writer.write(raw)
    if writer.can_write_eof():
        writer.write_eof()
    async with asyncio.timeout(15):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split(b" ")[1]) if head else 0), body


async def test_a_good_request_is_answered_in_json(door: Server, behind: Daemon) -> None:
    status, body = await say(door, f"GET /localapi/v0/status?a=1 HTTP/1.1\r\n{GOOD}\r\n".encode())
    assert (status, json.loads(body)) == (200, {"heard": "/localapi/v0/status"})
    assert behind.heard[0].query == {"a": "1"}
    assert behind.heard[0].uid == os.getuid()


HOSTILE_HEADERS = [
    *(
        f"{GOOD}Origin: {origin}\r\n"
        for origin in ("null", "http://localhost", f"http://{HOST}", "file://", "")
    ),
    *(f"{GOOD}Referer: {page}\r\n" for page in ("http://localhost/", f"http://{HOST}/", "about:blank", "")),
    *(f"{GOOD}Sec-Fetch-{name}: x\r\n" for name in ("Site", "Mode", "Dest")),
    *(
        f"Host: {host}\r\n"
        for host in (
            "localhost",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]",
            "evil.example",
            f"{HOST}.evil.example",
            f"{HOST}:80",
            f"evil.example#{HOST}",
            HOST.upper(),
            "",
            "local-tailscaled.sock",
        )
    ),
    "",
    f"{GOOD}{GOOD}",
    f"{GOOD}Host : evil.example\r\n",
    f"{GOOD} folded\r\n",
    f"{GOOD}Transfer-Encoding: chunked\r\n",
    f"{GOOD}Content-Length: -1\r\n",
    f"{GOOD}Content-Length: 1e3\r\n",
    f"{GOOD}Content-Length: {MAX_BODY_BYTES + 1}\r\n",
    f"{GOOD}Content-Length: 2\r\nContent-Length: 3\r\n",
    f"{GOOD}no colon here\r\n",
    f"{GOOD}" + "".join(f"X-{number}: y\r\n" for number in range(100)),
]


@pytest.mark.parametrize("headers", HOSTILE_HEADERS)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_hostile_headers_change_nothing(
    door: Server, behind: Daemon, method: str, headers: str
) -> None:
    status, _ = await say(door, f"{method} /localapi/v0/down HTTP/1.1\r\n{headers}\r\n{{}}".encode())
    assert status in (400, 403, 413)
    assert not behind.heard


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"\xff" * 99,
    ],
)
async def test_what_is_no_request_reaches_nobody(door: Server, behind: Daemon, raw: bytes) -> None:
    status, _ = await say(door, raw)
    assert status in (0, 400, 403)
    assert not behind.heard


async def test_an_endless_head_is_cut_off(door: Server, behind: Daemon) -> None:
    status, _ = await say(door, b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000)
    assert status in (0, 413)
    assert not behind.heard


@settings(max_examples=examples(5))
@given(st.binary(max_size=200))
def test_any_head_is_a_request_or_a_declared_error(junk: bytes) -> None:
    for head in (junk, b"GET / HTTP/1.1\r\n" + junk):
        try:
            check_headers(parse_head(head).headers)
        except ClientError:
            continue


async def test_an_error_is_its_code_and_words(door: Server, behind: Daemon) -> None:
    behind.failure = PeerNotFound("no peer 'x'")
    status, body = await say(door, f"GET /x HTTP/1.1\r\n{GOOD}\r\n".encode())
    assert (status, json.loads(body)) == (404, {"code": "peer-not-found", "message": "no peer 'x'"})


async def test_a_bug_is_no_secret_and_no_end(door: Server, behind: Daemon) -> None:
    behind.failure = ZeroDivisionError("secret")
    status, body = await say(door, f"GET /x HTTP/1.1\r\n{GOOD}\r\n".encode())
    assert status == 500
    assert b"secret" not in body
    behind.failure = None
    assert (await say(door, f"GET /x HTTP/1.1\r\n{GOOD}\r\n".encode()))[0] == 200


async def test_a_stream_is_lines_of_json(door: Server) -> None:
    def watch() -> list[dict[str, Any]]:
        with LocalClient(str(door.path)).watch() as notices:
            return [notices.next(5.0) for _ in range(3)]

    assert await asyncio.to_thread(watch) == [{"tick": 0}, {"tick": 1}, {"tick": 2}]


async def test_the_socket_is_closed_to_others(door: Server) -> None:
    assert stat.S_IMODE(door.path.stat().st_mode) == 0o660


async def test_a_second_daemon_on_the_socket_is_refused(door: Server, behind: Daemon) -> None:
    with pytest.raises(SetupError, match="another trenzad listens"):
        await Server(door.path, behind.handle, lambda: None).start()
    assert (await say(door, f"GET /x HTTP/1.1\r\n{GOOD}\r\n".encode()))[0] == 200


async def test_a_socket_file_of_a_dead_daemon_is_replaced(tmp_path: Path, behind: Daemon) -> None:
    path = tmp_path / "trenzad.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = Server(path, behind.handle, lambda: None)
    await server.start()
    assert (await say(server, f"GET /x HTTP/1.1\r\n{GOOD}\r\n".encode()))[0] == 200
    await server.close()


async def test_a_socket_that_cannot_be_made_is_one_line(tmp_path: Path, behind: Daemon) -> None:
    with pytest.raises(SetupError, match="too long"):
        await Server(tmp_path / ("x" * 120), behind.handle, lambda: None).start()


AS_NOBODY = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(sys.argv[1])
except PermissionError:
    print("closed"); raise SystemExit
head = b"POST /localapi/v0/down HTTP/1.1\\r\\nHost: local-trenzad.sock\\r\\n"
sock.sendall(head + b"Content-Length: 2\\r\\n\\r\\n{}")
print(sock.recv(65536).split(b" ")[1].decode())
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may pass through, unlike pytest's own."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.root
class TestOtherUsers:
    async def knock(self, path: Path) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", AS_NOBODY, str(path), stdout=subprocess.PIPE
        )
        output, _ = await process.communicate()
        return output.decode().strip()

    async def test_the_socket_file_keeps_them_out(self, open_folder: Path, behind: Daemon) -> None:
        server = Server(open_folder / "sock", behind.handle, lambda: None)
        await server.start()
        assert await self.knock(server.path) == "closed"
        await server.close()

    async def test_the_kernels_word_keeps_them_out_of_an_open_socket(
        self, open_folder: Path, behind: Daemon
    ) -> None:
        server = Server(open_folder / "sock", behind.handle, lambda: None)
        await server.start()
        server.path.chmod(0o666)
        assert await self.knock(server.path) == "403"
        assert not behind.heard
        await server.close()

    async def test_the_operator_gets_in(self, open_folder: Path, behind: Daemon) -> None:
        server = Server(open_folder / "sock", behind.handle, lambda: NOBODY)
        await server.start()
        assert await self.knock(server.path) == "200"
        assert behind.heard[0].uid == NOBODY
        await server.close()


@pytest.mark.parametrize("make", [lambda path: path.write_text("precious"), lambda path: path.mkdir()])
async def test_what_is_no_socket_is_not_removed(tmp_path: Path, behind: Daemon, make: Any) -> None:
    path = tmp_path / "precious"
    make(path)
    with pytest.raises(SetupError, match="give another --socket"):
        await Server(path, behind.handle, lambda: None).start()
    assert path.exists()
