"""The process inside: makes user, network, mount and process namespaces and serves its parent from there.

It hands out sockets of its network (SCM_RIGHTS) and runs programs in it. Everything inside ends with it, and
it ends when its parent does, or when the program does that it was asked to keep.

One JSON object a message on a SOCK_SEQPACKET socket, whose descriptor is the only argument. Requests have an
``id``, which the answer repeats beside its own members or an ``error`` (errno):

* ``{"do": "socket", "family", "type", "protocol"}``: the answer bears the socket,
* ``{"do": "run", "program": […]}`` with a file as its input, and perhaps another as its output: ``status``
  and ``said`` (its complaint),
* ``{"do": "keep", "program": […]}``: the answer bears a pidfd of it.

The first message is ``{"ready": true}`` with a descriptor of its ``/run``, or ``{"step", "error"}``.
Run by its path: it imports the standard library alone, and little of it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
MAX_MESSAGE_BYTES = 8192
MAX_COMPLAINT_CHARACTERS = 400
RUN_SECONDS = 30.0
ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "LOG_LEVEL": "silent"}

_libc = ctypes.CDLL(None, use_errno=True)


class StepError(Exception):
    """What the kernel refused: ``step`` is one of ``namespace``, ``mount``, ``loopback``."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__(f"{step}: {os.strerror(code)}")
        self.step, self.code = step, code


def main() -> None:
    parent = socket.socket(fileno=int(sys.argv[1]))
    try:
        enter()
        if pid := os.fork():  # a process namespace begins with a child; whoever started us waits for both
            parent.close()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0x7F)
        folder = furnish()
    except StepError as error:
        _tell(parent, {"step": error.step, "error": error.code})
        os._exit(1)
    _tell(parent, {"ready": True}, folder)
    os.close(folder)
    Keeper(parent).serve()
    os._exit(0)


def enter() -> None:
    """Become root of namespaces in which there is nothing yet. Raises :class:`StepError`."""
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID):
        raise StepError("namespace", ctypes.get_errno())
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError as error:
        raise StepError("namespace", error.errno or 0) from error


def furnish() -> int:
    """A ``/run`` of our own, for WireGuard's socket, and the loopback interface up; returns the folder."""
    run = os.path.realpath("/var/run").encode()
    _mount(b"none", b"/", None, MS_REC | MS_PRIVATE)
    _mount(b"tmpfs", run, b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("16sH14x", b"lo", 0)
            flags = struct.unpack_from("16sH", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))
        return os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StepError("loopback", error.errno or 0) from error


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int) -> None:
    if _libc.mount(source, target, kind, ctypes.c_ulong(flags), None):
        raise StepError("mount", ctypes.get_errno())


def _tell(parent: socket.socket, content: dict[str, Any], *descriptors: int) -> None:
    try:
        socket.send_fds(parent, [json.dumps(content).encode()], descriptors)
    except OSError:
        os._exit(1)  # the parent is gone, and with us all that is inside


class Keeper:
    """Serves until the parent is gone; programs run in threads, so that sockets never wait for them."""

    def __init__(self, parent: socket.socket) -> None:
        self._parent = parent

    def serve(self) -> None:
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._parent, MAX_MESSAGE_BYTES, 2)
            if not data:
                return
            request = json.loads(data)
            match request["do"]:
                case "socket":
                    self._socket(request)
                case "run":
                    threading.Thread(target=self._run, args=(request, *descriptors), daemon=True).start()
                case "keep":
                    self._keep(request)

    def _socket(self, request: dict[str, Any]) -> None:
        if request["family"] not in FAMILIES:
            return _tell(self._parent, {"id": request["id"], "error": 97})
        try:
            with socket.socket(request["family"], request["type"], request["protocol"]) as made:
                _tell(self._parent, {"id": request["id"]}, made.fileno())
        except OSError as error:
            _tell(self._parent, {"id": request["id"], "error": error.errno or 0})

    def _run(self, request: dict[str, Any], stdin: int, stdout: int = subprocess.DEVNULL) -> None:
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            done = subprocess.run(
                request["program"],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                timeout=RUN_SECONDS,
                check=False,
                env=ENVIRONMENT,
            )
            said = done.stderr.decode(errors="replace").strip()[:MAX_COMPLAINT_CHARACTERS]
            answer |= {"status": done.returncode, "said": said}
        except subprocess.TimeoutExpired:
            answer |= {"error": 110}
        except OSError as error:
            answer |= {"error": error.errno or 0}
        finally:
            os.close(stdin)
            if stdout >= 0:
                os.close(stdout)
        _tell(self._parent, answer)

    def _keep(self, request: dict[str, Any]) -> None:
        try:
            process = subprocess.Popen(
                request["program"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
            )
        except OSError as error:
            return _tell(self._parent, {"id": request["id"], "error": error.errno or 0})
        handle = os.pidfd_open(process.pid)
        _tell(self._parent, {"id": request["id"]}, handle)
        os.close(handle)
        return threading.Thread(target=self._end_with, args=(process,), daemon=True).start()

    def _end_with(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        os._exit(1)


if __name__ == "__main__":
    main()
