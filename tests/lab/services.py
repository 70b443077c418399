"""Small servers on a host of the lab, and clients of proxies there."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from tests.lab.net import LabError, Namespace

SECONDS = 20.0


class _Handler(BaseHTTPRequestHandler):
    """GET /N answers N bytes and says who asked; POST answers what was sent."""

    def do_GET(self) -> None:
        self._answer(b"x" * int(self.path.strip("/") or 0))

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Client", self.client_address[0])
        self.send_header("X-Connection", self.headers.get("Connection", ""))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def web_server(namespace: Namespace, address: str, port: int) -> Iterator[None]:
    """An HTTP server on this address of the host."""
    with namespace.entered():
        server = ThreadingHTTPServer((address, port), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def udp_echo(namespace: Namespace, address: str, port: int) -> Iterator[None]:
    """What comes to this UDP port goes back."""
    with namespace.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))

    def echo() -> None:
        while True:
            data, source = sock.recvfrom(65535)
            if not data:
                return
            sock.sendto(data, source)

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", (address, port))
        thread.join(SECONDS)
        sock.close()


def connect(namespace: Namespace, address: str, port: int, *, seconds: float = SECONDS) -> socket.socket:
    """A TCP connection from this host; :class:`LabError` when there is none to be had."""
    with namespace.entered():
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.settimeout(seconds)
    try:
        sock.connect((address, port))
    except OSError as error:
        sock.close()
        raise LabError(f"{namespace.short} cannot connect to {address} port {port}: {error}") from error
    return sock


def ask(
    namespace: Namespace, address: str, port: int, path: str, *, seconds: float = SECONDS
) -> tuple[int, dict[str, str], bytes]:
    """One GET straight from this host: status, headers, body."""
    return _get(connect(namespace, address, port, seconds=seconds), address, path)


def ask_by_socks(namespace: Namespace, proxy: int, host: str, port: int, path: str) -> bytes:
    """One GET through the SOCKS5 proxy on this host's loopback, which also resolves the name."""
    sock = connect(namespace, "127.0.0.1", proxy)
    sock.sendall(b"\x05\x01\x00")
    name = host.encode()
    request = b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big")
    if _exactly(sock, 2) != b"\x05\x00":
        sock.close()
        raise LabError("the SOCKS5 proxy wants a sign-in")
    sock.sendall(request)
    if reply := _exactly(sock, 10)[1]:
        sock.close()
        raise LabError(f"the SOCKS5 proxy refuses {host} port {port}: reply {reply}")
    return _get(sock, host, path)[2]


class SocksDatagrams:
    """A UDP association with the SOCKS5 proxy on this host's loopback; its end is that of ``with``."""

    def __init__(self, namespace: Namespace, proxy: int) -> None:
        self._control = connect(namespace, "127.0.0.1", proxy)
        self._control.sendall(b"\x05\x01\x00" + b"\x05\x03\x00\x01" + bytes(6))
        answer = _exactly(self._control, 12)
        if answer[2:6] != b"\x05\x00\x00\x01":
            self._control.close()
            raise LabError(f"the SOCKS5 proxy refuses an association: {answer!r}")
        with namespace.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((socket.inet_ntoa(answer[6:10]), int.from_bytes(answer[10:])))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self._socket.close()

    def exchange(self, host: str, port: int, data: bytes, *, seconds: float = SECONDS) -> tuple[str, bytes]:
        """Send to a name or address, and wait for a datagram back: its source, and what is in it."""
        try:
            packed = bytes([1]) + socket.inet_aton(host)
        except OSError:
            packed = bytes([3, len(host)]) + host.encode()
        self._socket.settimeout(seconds)
        self._socket.send(bytes(3) + packed + port.to_bytes(2, "big") + data)
        try:
            answer = self._socket.recv(65535)
        except OSError as error:
            raise LabError(f"no datagram from {host} port {port}: {error}") from error
        size, family = (4, socket.AF_INET) if answer[3] == 1 else (16, socket.AF_INET6)
        return socket.inet_ntop(family, answer[4 : 4 + size]), answer[6 + size :]


def ask_by_proxy(
    namespace: Namespace, proxy: int, url: str, body: bytes | None = None, *, seconds: float = SECONDS
) -> tuple[int, dict[str, str], bytes]:
    """One GET, or POST, of a plain address through the HTTP proxy on this host's loopback."""
    return _get(connect(namespace, "127.0.0.1", proxy, seconds=seconds), "proxy", url, body)


def ask_by_connect(namespace: Namespace, proxy: int, host: str, port: int, path: str) -> bytes:
    """One GET through CONNECT of the HTTP proxy on this host's loopback."""
    sock = connect(namespace, "127.0.0.1", proxy)
    sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += _exactly(sock, 1)
    if b" 200 " not in head.partition(b"\r\n")[0]:
        sock.close()
        raise LabError(f"the HTTP proxy refuses: {head.decode()}")
    return _get(sock, host, path)[2]


def _get(
    sock: socket.socket, host: str, target: str, body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection(f"[{host}]" if ":" in host else host, timeout=SECONDS)
    connection.sock = sock
    try:
        connection.request("GET" if body is None else "POST", target, body)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    except (OSError, HTTPException) as error:
        raise LabError(f"no answer for {target}: {error!r}") from error
    finally:
        connection.close()
        sock.close()


def _exactly(sock: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = sock.recv(length - len(data))
        if not piece:
            sock.close()
            raise LabError("the proxy hangs up")
        data += piece
    return data


def echoed(namespace: Namespace, address: str, port: int, data: bytes) -> bytes:
    """Send a UDP datagram and wait for one back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace.entered():
        sock = socket.socket(family, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(SECONDS)
        sock.connect((address, port))
        sock.send(data)
        try:
            return sock.recv(65535)
        except OSError as error:
            raise LabError(f"no echo from {address} port {port}: {error}") from error
