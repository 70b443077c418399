"""From a server's address to an open socket, and HTTP questions asked outside any session, as ``/key`` is.

Every failure is one line that says which of the usual causes it is. Source: tailscale control/controlhttp.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import io
import ipaddress
import random
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urlsplit

from client.errors import ControlError
from client.net.marks import mark_socket
from wire.codec import decode_object
from wire.control import CAPABILITY_VERSION
from wire.errors import WireError
from wire.fields import lower_names, string
from wire.keys import MachinePublic

CONNECT_SECONDS = 10.0
NEXT_ADDRESS_SECONDS = 0.25  # RFC 8305 §5: the next address is tried beside a slow one
MAX_ADDRESSES = 8
MAX_ANSWER_BYTES = 64 * 1024
USER_AGENT = "trenza"
BUSY = (429, 502, 503, 504)  # what a server, or the proxy before it, says while it starts, stops or is full
MAX_RETRY_SECONDS = 600.0  # longer than that nobody is kept away by a header
UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN}
Address = tuple[str, int]
Resolve = Callable[[str, int], Awaitable[list[Address]]]


@dataclass(frozen=True, slots=True)
class Server:
    """A control server's address. ``netloc`` is what stands in the Host header."""

    scheme: str
    host: str
    port: int
    netloc: str

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Takes what :func:`client.prefs.normal_url` gives."""
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname or "", port, parts.netloc)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.netloc}"

    @property
    def is_tls(self) -> bool:
        return self.scheme == "https"


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """``/key``: the server's Noise key, and its time as the Date header says (``None`` without one)."""

    key: MachinePublic
    date: datetime | None


async def resolve(host: str, port: int) -> list[Address]:
    """All addresses of a name, IPv6 and IPv4 in turn; raises ``socket.gaierror``."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families: dict[int, list[Address]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, []).append((str(address[0]), int(address[1])))
    longest = max(map(len, families.values()))
    return [
        addresses[index]
        for index in range(longest)
        for addresses in families.values()
        if index < len(addresses)
    ][:MAX_ADDRESSES]


@dataclass
class Dialer:
    """Opens marked sockets; remembers addresses that a name had, for when DNS is down.

    ``outside`` gives a name's addresses by another way than this host's programs have; none = it neither.
    """

    mark: bool = True
    resolve: Resolve = resolve
    outside: Callable[[str], Awaitable[list[str]]] | None = None
    tls: ssl.SSLContext | None = None
    _remembered: dict[str, list[Address]] = field(default_factory=dict)

    async def open(self, server: Server) -> socket.socket:
        """A connected, non-blocking TCP socket; raises :class:`ControlError`."""
        addresses = await self._addresses(server)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._first(addresses)
        except TimeoutError:
            raise ControlError(
                f"{server.netloc} does not answer: is the address right, and does a firewall stand between?"
            ) from None
        except OSError as error:
            raise _refusal(server, error) from error

    def tls_context(self, server: Server) -> ssl.SSLContext | None:
        """Verification by the system's certificate store, for https; ``None`` for http."""
        if not server.is_tls:
            return None
        if self.tls is None:
            self.tls = ssl.create_default_context()
        return self.tls

    async def streams(self, server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A byte stream to the server, over TLS when its address says so; raises :class:`ControlError`."""
        sock = await self.open(server)
        context = self.tls_context(server)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await asyncio.open_connection(
                    sock=sock, ssl=context, server_hostname=server.host if context else None
                )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            sock.close()
            raise tls_refusal(server, error) from error
        except BaseException:
            sock.close()
            raise

    async def _addresses(self, server: Server) -> list[Address]:
        with contextlib.suppress(ValueError):
            return [(str(ipaddress.ip_address(server.host)), server.port)]
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                found = await self.resolve(server.host, server.port)
        except (OSError, UnicodeError, TimeoutError) as error:
            if server.host in self._remembered:
                return self._remembered[server.host]
            if self.outside is not None and (hosts := await self.outside(server.host)):
                return [(host, server.port) for host in hosts[:MAX_ADDRESSES]]
            raise ControlError(
                f"cannot find {server.host} in DNS: is the address right, and is this machine online?"
            ) from error
        self._remembered[server.host] = found
        return found

    async def _first(self, addresses: Sequence[Address]) -> socket.socket:
        """The first address that answers; each next one joins the race after a moment."""
        waiting, started = list(addresses), list[asyncio.Task[socket.socket]]()
        racing: set[asyncio.Task[socket.socket]] = set()
        winner: asyncio.Task[socket.socket] | None = None
        failure = OSError(errno.EHOSTUNREACH, "no address")
        try:
            while waiting or racing:
                if waiting:
                    started.append(asyncio.create_task(self._connect(waiting.pop(0))))
                    racing.add(started[-1])
                pause = NEXT_ADDRESS_SECONDS if waiting else None
                done, racing = await asyncio.wait(racing, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    try:
                        sock, winner = task.result(), task
                    except OSError as error:
                        failure = error
                    else:
                        return sock
            raise failure
        finally:
            for task in started:
                if task is not winner:
                    task.cancel()
                    task.add_done_callback(_discard)

    async def _connect(self, address: Address) -> socket.socket:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if self.mark:
                mark_socket(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock


def _discard(task: asyncio.Task[socket.socket]) -> None:
    """Close the socket of somebody who came second."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _refusal(server: Server, error: OSError) -> ControlError:
    if isinstance(error, ConnectionRefusedError):
        return ControlError(f"{server.netloc} refuses the connection: is the server running there?")
    if error.errno in UNREACHABLE:
        return ControlError(f"there is no way to {server.netloc}: is this machine's network up?")
    return ControlError(f"cannot connect to {server.netloc}: {error.strerror or error}")


def tls_refusal(server: Server, error: Exception) -> ControlError:
    """Why TLS failed, in words; a certificate outside its dates usually means that a clock is wrong."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if "not yet valid" in error.verify_message or "expired" in error.verify_message:
            now = datetime.now(UTC)
            return ControlError(
                f"TLS refused: the certificate of {server.netloc} is outside its dates "
                f"({error.verify_message}): this machine's clock says {now:%Y-%m-%d %H:%M} UTC: is it right?"
            )
        return ControlError(
            f"TLS refused: the certificate of {server.netloc} is not trusted ({error.verify_message}): "
            "use the name that it is for, or add its authority to this machine's certificate store"
        )
    if isinstance(error, ssl.SSLError):
        return ControlError(f"{server.netloc} does not speak TLS here: is it http:// instead of https://?")
    if isinstance(error, TimeoutError):
        return ControlError(f"{server.netloc} does not answer over TLS: is it http:// instead of https://?")
    return ControlError(f"{server.netloc} closed the connection during TLS: {error}")


class _Bytes:
    """Whole bytes as the socket that :class:`http.client.HTTPResponse` reads."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def makefile(self, mode: str) -> io.BytesIO:
        return self._file


def parse_response(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower-case names) and body of an HTTP/1 response; raises ``HTTPException``."""
    fake: Any = _Bytes(data)
    response = http.client.HTTPResponse(fake)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return response.status, headers, response.read()


def not_ours(server: Server, why: str) -> ControlError:
    return ControlError(f"{server.url} is no Trenza or Tailscale control server ({why}): check the address")


def busy(server: Server, status: int, headers: Mapping[str, str]) -> ControlError:
    """A server that answers, but not now."""
    text = f"{server.url} cannot answer now (HTTP {status}): is the server starting or down?"
    return ControlError(text, retry_after=retry_after(headers.get("retry-after", "")))


def retry_after(text: str) -> float:
    """Seconds that a Retry-After header asks to wait, from a number or a date; 0 for none or nonsense."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(seconds, MAX_RETRY_SECONDS) if seconds > 0 else 0.0


async def fetch_key(dialer: Dialer, server: Server) -> KeyAnswer:
    """``GET /key``; raises :class:`ControlError` that says when something else answers there."""
    return _read_key(server, *await ask(dialer, server, "GET", f"/key?v={CAPABILITY_VERSION}"))


async def ask(
    dialer: Dialer,
    server: Server,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
    body: bytes = b"",
    seconds: float = CONNECT_SECONDS,
) -> tuple[int, dict[str, str], bytes]:
    """One HTTP request on a connection of its own, redirects not followed: status, headers, body.

    Raises :class:`ControlError` when nothing that speaks HTTP answers within ``seconds``.
    """
    lines = {
        "Host": server.netloc,
        "User-Agent": USER_AGENT,
        "Accept": "application/json",
        "Connection": "close",
        **({"Content-Length": str(len(body))} if body else {}),
        **headers,
    }
    head = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items())]
    reader, writer = await dialer.streams(server)
    try:
        async with asyncio.timeout(seconds):
            writer.write("\r\n".join((*head, "", "")).encode() + body)
            data = await _read_all(reader)
    except (OSError, TimeoutError) as error:
        raise not_ours(server, "it does not answer HTTP") from error
    finally:
        writer.close()
    try:
        return parse_response(data)
    except http.client.HTTPException as error:
        raise not_ours(server, "it does not answer HTTP") from error


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    data = b""
    while len(data) < MAX_ANSWER_BYTES and (piece := await reader.read(MAX_ANSWER_BYTES)):
        data += piece
    return data


def _read_key(server: Server, status: int, headers: dict[str, str], body: bytes) -> KeyAnswer:
    if 300 <= status < 400 and "location" in headers:
        raise ControlError(f"{server.url} leads elsewhere ({headers['location'][:200]}): use that address")
    if status >= 500 or status in BUSY:
        raise busy(server, status, headers)
    if status != 200:
        raise not_ours(server, f"HTTP {status} for /key")
    try:
        key = MachinePublic.parse(string(lower_names(decode_object(body)), "publickey"))
    except WireError as error:
        raise not_ours(server, "no key in its /key") from error
    try:
        date = parsedate_to_datetime(headers["date"]) if "date" in headers else None
    except (ValueError, OverflowError):
        date = None
    return KeyAnswer(key, date.replace(tzinfo=UTC) if date and date.tzinfo is None else date)


@dataclass
class Backoff:
    """Waits that double up to a cap, each with full spread of one half, so that many clients do not meet."""

    first: float = 0.25
    cap: float = 10.0
    spread: Callable[[float, float], float] = random.uniform
    _failures: int = 0

    def next(self, at_least: float = 0.0) -> float:
        """Seconds to wait after one more failure; a server that asked for a time gets it."""
        delay: float = min(self.cap, self.first * 2 ** min(self._failures, 16))
        self._failures += 1
        if at_least > delay:
            return at_least * self.spread(1.0, 1.5)
        return delay * self.spread(0.5, 1.5)

    def reset(self) -> None:
        self._failures = 0
