"""Asking other resolvers: UDP, TCP when an answer was cut, DoH; the next one when one is slow or says no.

Source: tailscale net/dns/resolver/forwarder.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections.abc import Sequence

from client.dns.answers import HEADER, MAX_TCP, answers, is_truncated, rcode_of, with_id
from client.dns.config import Upstream
from client.dns.doh import DohClient
from client.dns.sockets import OpenSocket, open_here

logger = logging.getLogger("trenzad.dns")

FORWARD_SECONDS = 10.0
NEXT_SECONDS = 1.0  # a resolver that has not answered by then is not waited for alone
RESEND_SECONDS = (1.5, 3.0, 5.5)  # a lost packet is sent again; the sum is all the time there is
MAX_ATTEMPTS_AT_ONCE = 3
SERVFAIL, NOTIMP, REFUSED = 2, 4, 5
UNHELPFUL = frozenset({SERVFAIL, NOTIMP, REFUSED})
RECEIVE_BYTES = 65535


class NoAnswer(Exception):
    """Nobody who could be asked answered in time; the message says why the last one did not."""


class Forwarder:
    """``ask`` may run many times at once; :meth:`close` ends the connections that are kept open."""

    def __init__(self, doh: DohClient | None = None, open_socket: OpenSocket = open_here) -> None:
        self._doh = doh or DohClient(open_socket=open_socket)
        self._open_socket = open_socket

    async def ask(self, query: bytes, upstreams: Sequence[Upstream]) -> bytes:
        """The first useful answer, under the query's own number; raises :class:`NoAnswer`."""
        if not upstreams:
            raise NoAnswer("there is no resolver to ask")
        try:
            async with asyncio.timeout(FORWARD_SECONDS):
                return with_id(await self._race(query, upstreams), int.from_bytes(query[:2]))
        except TimeoutError:
            raise NoAnswer(
                f"{', '.join(map(str, upstreams))}: no answer in {FORWARD_SECONDS:.0f} s"
            ) from None

    async def close(self) -> None:
        await self._doh.close()

    async def _race(self, query: bytes, upstreams: Sequence[Upstream]) -> bytes:
        """The next beside a slow one; an unhelpful answer counts only when there is no other."""
        waiting, racing = list(upstreams), set[asyncio.Task[bytes]]()
        unhelpful, problem = b"", "no answer"
        try:
            while waiting or racing:
                if waiting and len(racing) < MAX_ATTEMPTS_AT_ONCE:
                    racing.add(asyncio.create_task(self._exchange(query, waiting.pop(0))))
                pause = NEXT_SECONDS if waiting and len(racing) < MAX_ATTEMPTS_AT_ONCE else None
                done, racing = await asyncio.wait(racing, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        answer = task.result()
                    except (OSError, NoAnswer) as error:
                        problem = str(error) or type(error).__name__
                        continue
                    if rcode_of(answer) not in UNHELPFUL:
                        return answer
                    unhelpful = answer
        finally:
            for task in racing:
                task.cancel()
            await asyncio.gather(*racing, return_exceptions=True)
        if unhelpful:
            return unhelpful
        raise NoAnswer(problem)

    async def _exchange(self, query: bytes, upstream: Upstream) -> bytes:
        """One resolver's answer; ``TimeoutError`` is an ``OSError``."""
        if upstream.url:
            wanted = with_id(query, 0)  # RFC 8484 §4.1: alike for all, so that servers can cache
            answer = await self._doh.ask(upstream, wanted)
        else:
            wanted = with_id(query, secrets.randbits(16))
            answer = await self._udp(wanted, upstream)
            if is_truncated(answer):
                answer = await self._tcp(wanted, upstream)
        if not answers(answer, wanted):
            raise NoAnswer(f"{upstream} answers another question")
        return answer

    async def _udp(self, query: bytes, upstream: Upstream) -> bytes:
        """A connected socket of its own: the kernel keeps strangers' packets out, and the port is random."""
        loop = asyncio.get_running_loop()
        with await self._open(upstream, socket.SOCK_DGRAM) as sock:
            sock.connect((upstream.host, upstream.port))
            for seconds in RESEND_SECONDS:
                await loop.sock_sendall(sock, query)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        return await _genuine(sock, query)
        raise NoAnswer(f"{upstream} does not answer")

    async def _tcp(self, query: bytes, upstream: Upstream) -> bytes:
        """RFC 1035 §4.2.2: a length of two bytes in front."""
        loop = asyncio.get_running_loop()
        with await self._open(upstream, socket.SOCK_STREAM) as sock:
            await loop.sock_connect(sock, (upstream.host, upstream.port))
            await loop.sock_sendall(sock, len(query).to_bytes(2) + query)
            length = int.from_bytes(await _exactly(sock, 2))
            if not HEADER <= length <= MAX_TCP:
                raise NoAnswer(f"{upstream} answers with {length} bytes")
            return await _exactly(sock, length)

    async def _open(self, upstream: Upstream, kind: int) -> socket.socket:
        return await self._open_socket(upstream.host, kind, marked=upstream.marked)


async def _genuine(sock: socket.socket, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        answer = await loop.sock_recv(sock, RECEIVE_BYTES)
        if answers(answer, query):
            return answer


async def _exactly(sock: socket.socket, length: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < length:
        piece = await loop.sock_recv(sock, length - len(data))
        if not piece:
            raise ConnectionResetError("the resolver hung up")
        data += piece
    return data
