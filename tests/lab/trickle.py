"""One TCP connection that says a little all the time, and must last, as a person's SSH session must."""

from __future__ import annotations

import subprocess
import sys

from tests.lab.net import LabError, Namespace
from tests.lab.processes import wait_for

PORT = 5202
END_SECONDS = 60.0
SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data)
"""
CLIENT = """
import select, socket, sys
sent = heard = 0
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    connection.sendall(b"x")
    connection.recv(1)
    print("up", flush=True)
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        connection.sendall(b"x")
        sent += 1
        while select.select([connection], [], [], 0)[0]:
            heard += len(connection.recv(4096))
    while heard < sent:
        data = connection.recv(4096)
        if not data:
            sys.exit("closed")
        heard += len(data)
print(heard)
"""


class Trickle:
    """From ``source`` to ``address`` of ``target``, until :meth:`end`."""

    def __init__(self, source: Namespace, target: Namespace, address: str) -> None:
        arguments = (address, str(PORT))
        self._server = target.spawn(sys.executable, "-c", SERVER, *arguments, stderr=subprocess.DEVNULL)
        wait_for("the echo server listens", lambda: target.run("ss", "-Hltn", f"sport = :{PORT}").stdout)
        self._client = source.spawn(
            sys.executable,
            "-c",
            CLIENT,
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._client.stdout is not None
        if self._client.stdout.readline() != "up\n":
            self.close()
            raise LabError(f"no TCP connection to {address}")

    def end(self) -> int:
        """Say no more and wait for every echo; their number. :class:`LabError` when the connection broke."""
        try:
            text, _ = self._client.communicate("\n", timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            raise LabError("the TCP connection hangs") from None
        finally:
            self.close()
        if self._client.returncode:
            raise LabError(f"the TCP connection broke: {text}")
        return int(text)

    def close(self) -> None:
        for process in (self._client, self._server):
            if process.poll() is None:
                process.kill()
            process.wait()
        for stream in (self._client.stdin, self._client.stdout):
            if stream is not None:
                stream.close()
