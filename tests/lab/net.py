"""Network namespaces as objects: an "internet" bridge, hosts on it, and NAT routers with hosts behind them.

Nothing here touches the machine's own network: every interface lives in a namespace of the lab, and no route
leads out of it. Namespaces bear the number of the process that made them; what a killed process left behind
is swept by the next lab. Needs root, iproute2 and nftables.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import enum
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PREFIX = "tzlab"
NETNS = Path("/run/netns")
ETC_NETNS = Path("/etc/netns")
INTERNET4 = "10.77.0"  # private on purpose: official clients keep to plain HTTP only there
INTERNET6 = "2001:db8:77"
CLONE_NEWNET = 0x40000000
# How much longer than usual everything may take: more in the emulated machine of tests/kernel.
PATIENCE = float(os.environ.get("TRENZA_TEST_PATIENCE", "1"))
COMMAND_SECONDS = 60.0
KILL_SECONDS = 5.0

Done = subprocess.CompletedProcess[str]

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """A command of the lab itself failed; the message bears its output."""


class Nat(enum.Enum):
    """How a router maps. ``EASY``: one mapping for all destinations; ``HARD``: another one for each."""

    EASY = "masquerade"
    HARD = "masquerade random,fully-random"


# The drop on the router's own input matters: without it an early ping leaves a conntrack entry there, the
# packet out gets another port, and two easy NATs no longer meet.
RULES = """
flush ruleset
table inet nat {{
  chain post {{
    type nat hook postrouting priority srcnat;
    meta nfproto ipv4 oifname "wan" {masquerade}
  }}
}}
table inet filter {{
  chain input {{
    type filter hook input priority 0; policy accept;
    iifname "wan" ct state established,related accept
    iifname "wan" meta l4proto {{ icmp, ipv6-icmp }} accept
    iifname "wan" drop
  }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    {udp}
    ct state established,related accept
    iifname "lan" accept
  }}
}}
"""


def run(
    *command: str | Path,
    stdin: str | None = None,
    check: bool = True,
    environment: Mapping[str, str] | None = None,
    seconds: float = COMMAND_SECONDS,
) -> Done:
    """Run a command of the lab to its end; raises :class:`LabError` with its output when it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds * PATIENCE,
        env=dict(environment) if environment is not None else None,
    )
    if check and done.returncode:
        raise LabError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done


@dataclass(eq=False)
class Namespace:
    """One network namespace. ``address4`` and ``address6`` are its addresses on the segment it lives on."""

    name: str
    short: str
    folder: Path
    address4: str = ""
    address6: str = ""
    _spawned: list[subprocess.Popen[Any]] = field(default_factory=list)

    def command(self, *command: str | Path, private: Mapping[str, Path] | None = None) -> list[str]:
        """The argument list that runs ``command`` in here.

        ``private`` puts folders over others for it alone (``ip netns exec`` gives it mounts of its own).
        """
        inside = [str(part) for part in command]
        for place, folder in (private or {}).items():
            inside = ["sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(folder), place, *inside]
        return ["ip", "netns", "exec", self.name, *inside]

    def run(self, *command: str | Path, private: Mapping[str, Path] | None = None, **options: Any) -> Done:
        """Run a command in here to its end; the options are those of :func:`run`."""
        return run(*self.command(*command, private=private), **options)

    def spawn(
        self, *command: str | Path, private: Mapping[str, Path] | None = None, **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a command in here; the options are those of ``Popen``. It ends with the namespace."""
        process = subprocess.Popen(self.command(*command, private=private), **options)
        self._spawned.append(process)
        return process

    def ip(self, *lines: str) -> None:
        """Run lines of ``ip``'s batch language in here."""
        run("ip", "-n", self.name, "-batch", "-", stdin="\n".join(lines) + "\n")

    def rules(self, ruleset: str) -> None:
        """Replace the packet filter."""
        self.run("nft", "-f", "-", stdin=ruleset)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread's new sockets belong to the namespace; those it made before stay where they are."""
        with open("/proc/thread-self/ns/net") as outside, open(NETNS / self.name) as inside:
            _set_namespace(inside.fileno())
            try:
                yield
            finally:
                _set_namespace(outside.fileno())

    def knows(self, address: str, name: str) -> None:
        """Give the host at ``address`` a name in here."""
        with (ETC_NETNS / self.name / "hosts").open("a") as file:
            file.write(f"{address} {name}\n")

    def pids(self) -> list[int]:
        """Every process in here."""
        return [int(line) for line in run("ip", "netns", "pids", self.name, check=False).stdout.split()]

    def kill_all(self) -> None:
        """End every process in here, detached ones too, and wait until they are gone."""
        deadline = time.monotonic() + KILL_SECONDS * PATIENCE
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for process in self._spawned:
            process.wait(KILL_SECONDS * PATIENCE)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        self._spawned.clear()

    def remove(self) -> None:
        """Remove the namespace with everything in it."""
        self.kill_all()
        run("ip", "netns", "del", self.name, check=False)
        shutil.rmtree(ETC_NETNS / self.name, ignore_errors=True)
        with contextlib.suppress(OSError):
            ETC_NETNS.rmdir()  # only when it is empty


def _set_namespace(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise LabError(f"setns: {os.strerror(ctypes.get_errno())}")


def _bridge(name: str, number: int) -> str:
    """How to add one that keeps its MAC: else it takes another with each host, which its neighbours miss."""
    return f"link add {name} address 02:00:00:00:00:{number:02x} type bridge mcast_snooping 0"


@dataclass(eq=False)
class Router:
    """A NAT router between the internet and a LAN (``lan`` is an interface of it, a bridge)."""

    lab: Lab
    namespace: Namespace
    number: int
    nat: Nat
    ipv6: bool
    hosts: int = 1

    def host(self, name: str) -> Namespace:
        """A new host on the LAN."""
        self.hosts += 1
        host = self.lab.namespace(name)
        port = f"p{self.hosts}"
        host.ip(f"link add eth0 type veth peer name {port} netns {self.namespace.name}", "link set eth0 up")
        self.namespace.ip(f"link set {port} master lan up")
        host.address4 = f"192.168.{self.number}.{self.hosts}"
        host.ip(f"addr add {host.address4}/24 dev eth0", f"route add default via 192.168.{self.number}.1")
        if self.ipv6:
            host.address6 = f"2001:db8:{self.number}::{self.hosts}"
            host.ip(
                f"addr add {host.address6}/64 dev eth0 nodad",
                f"route add default via 2001:db8:{self.number}::1",
            )
        return host

    def block_udp(self, blocked: bool) -> None:
        """Let UDP of the LAN out, or not."""
        udp = 'iifname "lan" meta l4proto udp drop' if blocked else ""
        self.namespace.rules(RULES.format(masquerade=self.nat.value, udp=udp))


class Lab:
    """A small internet. Use as a context manager: leaving it removes everything, whatever happened inside."""

    _made = 0

    def __init__(self) -> None:
        sweep()
        Lab._made += 1
        self.prefix = f"{PREFIX}{os.getpid()}x{Lab._made}"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-"))
        self._namespaces: list[Namespace] = []
        self._hosts = 0
        self._routers = 0
        self._closed = False
        atexit.register(self.close)
        try:
            self.internet = self.namespace("net")
            self._make_internet()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_internet(self) -> None:
        """One segment. Its gateway routes the LANs' IPv6 and no IPv4: behind a NAT there is only the NAT."""
        self.internet.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
        self.internet.ip(
            _bridge("br0", 0),
            "link set br0 up",
            f"addr add {INTERNET4}.254/24 dev br0",
            f"addr add {INTERNET6}::ffff/64 dev br0 nodad",
        )

    def namespace(self, name: str) -> Namespace:
        """A new, empty namespace with its loopback up."""
        made = Namespace(f"{self.prefix}-{name}", name, self.folder / name)
        made.folder.mkdir()  # refuses a name that was used before: a node's folder is its identity
        run("ip", "netns", "add", made.name)
        self._namespaces.append(made)
        made.ip("link set lo up")
        for family in ("all", "default"):
            made.run("sysctl", "-qw", f"net.ipv6.conf.{family}.accept_dad=0")
        etc = ETC_NETNS / made.name
        etc.mkdir(parents=True)
        (etc / "resolv.conf").write_text("")
        (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        return made

    def host(self, name: str) -> Namespace:
        """A host with a public address."""
        host = self.namespace(name)
        self._plug(host, "eth0")
        return host

    def router(self, name: str, nat: Nat = Nat.EASY, *, udp: bool = True, ipv6: bool = False) -> Router:
        """A router; ``udp=False`` drops its LAN's UDP, ``ipv6`` routes a /64 behind a stateful filter."""
        self._routers += 1
        namespace = self.namespace(name)
        self._plug(namespace, "wan")
        router = Router(self, namespace, self._routers, nat, ipv6)
        namespace.ip(_bridge("lan", router.number), "link set lan up")
        namespace.ip(f"addr add 192.168.{router.number}.1/24 dev lan")
        namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        router.block_udp(not udp)
        if ipv6:
            lan = f"2001:db8:{router.number}:"
            namespace.ip(f"addr add {lan}:1/64 dev lan nodad")
            self.internet.ip(f"route add {lan}:/64 via {namespace.address6}")
        return router

    def _plug(self, host: Namespace, interface: str) -> None:
        """Connect ``host`` to the internet with the next free address."""
        self._hosts += 1
        port = f"p{self._hosts}"
        host.address4, host.address6 = f"{INTERNET4}.{self._hosts}", f"{INTERNET6}::{self._hosts}"
        host.ip(f"link add {interface} type veth peer name {port} netns {self.internet.name}")
        self.internet.ip(f"link set {port} master br0 up")
        host.ip(
            f"link set {interface} up",
            f"addr add {host.address4}/24 dev {interface}",
            f"route add default via {INTERNET4}.254",
            f"addr add {host.address6}/64 dev {interface} nodad",
            f"route add default via {INTERNET6}::ffff",
        )

    def remove(self, namespace: Namespace) -> None:
        """Remove one namespace before the rest."""
        namespace.remove()
        self._namespaces.remove(namespace)

    def close(self) -> None:
        """Remove everything; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        for namespace in reversed(self._namespaces):
            namespace.remove()
        shutil.rmtree(self.folder, ignore_errors=True)


def sweep() -> None:
    """Remove what labs of processes that are no more left behind."""
    for path in NETNS.glob(f"{PREFIX}*-*") if NETNS.is_dir() else ():
        if not _alive(path.name):
            Namespace(path.name, path.name, path).remove()
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        if not _alive(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(name: str) -> bool:
    """Whether the process that made a namespace or folder of this name still runs."""
    pid = name.removeprefix(PREFIX).partition("x")[0]
    return not pid.isdigit() or Path("/proc", pid).exists()
