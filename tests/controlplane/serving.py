"""``manage.py serve`` as a subprocess with its own DATA, and a person who is signed in to its panel."""

from __future__ import annotations

import atexit
import contextlib
import http.cookiejar
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
READY_SECONDS = 90.0
STOP_SECONDS = 20.0
SCRIPT_SECONDS = 240.0


def patience(seconds: float) -> float:
    """A time that is promised on a machine of one's own, as long as a busy one may take for it."""
    return seconds * max(1.0, os.getloadavg()[0])


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children_of(pid: int) -> list[int]:
    """The living child processes of a process."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(folder.name))
    return found


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


class Serve:
    """A server; ``extra`` are environment variables, ``workers`` web workers."""

    def __init__(self, data: Path, *, workers: int = 1, **extra: str) -> None:
        self.data = data
        self.workers = workers
        self.extra = extra
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.relay = {
            "TRENZA_RELAY_LISTEN": f"127.0.0.1:{free_port()}",
            "TRENZA_RELAY_STUN": f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}",
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("TRENZA_") and name not in ("DATABASE_URL", "REDIS_URL")
        }
        own = {
            "TRENZA_DATA": str(self.data),
            "TRENZA_URL": self.url,
            "TRENZA_LISTEN": f"127.0.0.1:{self.port}",
        }
        return kept | self.relay | own | self.extra

    def command(self, *arguments: str) -> Any:
        """Run ``manage.py …`` beside the server; its JSON when it was asked for."""
        done = subprocess.run(
            [sys.executable, str(CHECKOUT / "manage.py"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    def script(self, text: str, *arguments: str) -> str:
        """Run a program on the server's database, in a process of its own; what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", text, *arguments],
            env=self.environment | {"DJANGO_SETTINGS_MODULE": "controlplane.settings"},
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
            timeout=SCRIPT_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def prepare(self) -> None:
        """An empty server: on SQLite a copy of one that was prepared before."""
        if "DATABASE_URL" not in self.extra:
            shutil.copytree(prepared_data(), self.data)
            return
        self.data.mkdir(parents=True, exist_ok=True)
        self.command("prepare")
        self.command("firststart")

    def start(self) -> None:
        with (self.data / "serve.out").open("ab") as out, (self.data / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(CHECKOUT / "manage.py"), "serve", f"--workers={self.workers}"],
                env=self.environment,
                stdout=out,
                stderr=log,
            )
        self.wait_ready()

    def log(self) -> str:
        return (self.data / "serve.log").read_text()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                return
            assert self.process is None or self.process.poll() is None, self.log()
            time.sleep(0.05)
        raise AssertionError("the server did not become ready:\n" + self.log())

    def web_workers(self) -> list[int]:
        assert self.process is not None
        return [pid for pid in children_of(self.process.pid) if " webworker " in command_line(pid)]

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def auth_key(self, *options: str) -> str:
        return str(self.command("createauthkey", "default", *options, "--json")["key"])

    def state_of(self, hostname: str) -> dict[str, Any]:
        """A device as ``listnodes`` has it."""
        devices = self.command("listnodes", "default", "--json")
        (found,) = [device for device in devices if device["hostname"] == hostname]
        return dict(found)


@cache
def prepared_data() -> Path:
    """A DATA folder with the first tailnet in it, made once for each run of the tests.

    ``TRENZA_TEST_PREPARED`` names one that was made before (``tests/run.sh`` does).
    """
    if made := os.environ.get("TRENZA_TEST_PREPARED"):
        return Path(made)
    folder = Path(tempfile.mkdtemp(prefix="trenza-prepared-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    prepare(folder)
    return folder


def prepare(folder: Path) -> None:
    """Make DATA in this empty folder, with the first tailnet in it."""
    server = Serve(folder)
    server.command("prepare")
    server.command("firststart")


@contextlib.contextmanager
def serving(data: Path, *, workers: int = 1, **extra: str) -> Iterator[Serve]:
    """A prepared, running server that is stopped at the end, and has logged no bug of its own."""
    server = Serve(data, workers=workers, **extra)
    server.prepare()
    server.start()
    try:
        yield server
    finally:
        server.stop()
    assert "Traceback" not in server.log(), server.log()


class _StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Person:
    """Somebody who has signed in by a one-time link; answers are (status, text)."""

    def __init__(self, server: Serve, email: str = "owner@localhost") -> None:
        self.server = server
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(jar, _StayHere)
        link = server.command("signinlink", email, "--create", "--json")["url"]
        assert self.get(link)[0] == 302

    def get(self, path: str) -> tuple[int, str]:
        return self._open(urllib.request.Request(urllib.parse.urljoin(self.server.url, path)))

    def post(self, path: str, form_page: str, **fields: str) -> tuple[int, str]:
        """Send the form that ``form_page`` shows, with its hidden fields and these."""
        status, page = self.get(form_page)
        assert status == 200, (status, page[:500])
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
        form = urllib.parse.urlencode(hidden | fields).encode()
        url = urllib.parse.urljoin(self.server.url, path)
        return self._open(urllib.request.Request(url, form, {"Origin": self.server.url}))

    def _open(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with self.opener.open(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
