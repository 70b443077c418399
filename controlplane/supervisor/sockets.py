"""The web socket that workers inherit, and how many files they may open."""

from __future__ import annotations

import resource
import socket

from controlplane.env import EnvironmentProblem, HostPort

BACKLOG = 4096
KEEPALIVE_SECONDS = 30


def bind_web_socket(listen: HostPort) -> socket.socket:
    """The listening TCP socket of the web workers; raises :class:`EnvironmentProblem` when it is taken."""
    try:
        family = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.create_server((listen.host, listen.port), family=family, backlog=BACKLOG)
        _notice_dead_peers(sock)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot listen on {listen}: {error.strerror or error}; free the port or set TRENZA_LISTEN"
        ) from error
    sock.set_inheritable(True)
    return sock


def _notice_dead_peers(sock: socket.socket) -> None:
    """Accepted sockets inherit this: a client that vanished without a word is found within a minute."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS // 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2 * KEEPALIVE_SECONDS * 1000)


def raise_file_limit() -> None:
    """Each stream is an open file; children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
