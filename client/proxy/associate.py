"""SOCKS5's UDP ASSOCIATE (RFC 1928 §7): datagrams of one program on this machine, to whom it names and back.

An association has a socket on loopback for its program, and for all others one for each way and family, so
that they see one address and port (RFC 4787 REQ-1). Whom the program has not spoken to does not reach it. It
ends with the connection that asked for it, or when nothing passes for long. All of it is bounded; what does
not fit is lost, as UDP may be.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from client.errors import ClientError
from client.prefixes import IPAddress
from client.proxy.dialer import DIAL_SECONDS, Dialer, Way

MAX_ASSOCIATIONS = 64
IDLE_SECONDS = 300.0  # RFC 4787 REQ-5 recommends five minutes
MAX_PARTNERS = 256  # the one not spoken to for longest makes room
MAX_WAITING = 16  # datagrams to a partner whose address is being looked for
NAME_SECONDS = 60.0  # then a name is looked up anew
MAX_DATAGRAM_BYTES = 65_535
MAX_DATAGRAMS_A_ROUND = 64
MAX_READ_BYTES = 1024
IPV4, NAME, IPV6 = 1, 3, 4
ADDRESS_BYTES = {IPV4: 4, IPV6: 16}
GONE = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.ENODEV})  # the network that a socket was of

Address = tuple[str, int]
Target = tuple[Way, int]


def unwrap(datagram: bytes) -> tuple[str, int, bytes] | None:
    """Host, port and data of what a program sends; ``None`` for a fragment, and for what is malformed."""
    if len(datagram) < 5 or datagram[:3] != bytes(3):
        return None
    kind, begin = datagram[3], 4
    if kind == NAME:
        length, begin = datagram[4], 5
    else:
        length = ADDRESS_BYTES.get(kind, 0)
    host, port = datagram[begin : begin + length], datagram[begin + length : begin + length + 2]
    if not length or len(port) < 2 or port == bytes(2):
        return None
    text = host.decode("ascii", "replace") if kind == NAME else str(ipaddress.ip_address(host))
    return text, int.from_bytes(port), datagram[begin + length + 2 :]


def wrapped(address: IPAddress, port: int, data: bytes = b"") -> bytes:
    """What a program gets: who sent it, and the data."""
    return bytes(3) + packed(address, port) + data


def packed(address: IPAddress, port: int) -> bytes:
    """An address as SOCKS5 has it everywhere."""
    return bytes([IPV4 if address.version == 4 else IPV6]) + address.packed + port.to_bytes(2)


@dataclass(slots=True)
class Partner:
    """Somebody as the program names them: ``address`` is what that stands for until ``until`` (loop time)."""

    host: str
    port: int
    waiting: deque[bytes] = field(default_factory=lambda: deque(maxlen=MAX_WAITING))
    task: asyncio.Task[None] | None = None
    address: IPAddress | None = None
    way: Way | None = None
    until: float = 0.0


class Associations:
    """Those of one proxy."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._open = 0

    def begin(self, here: str, program: Address) -> Association:
        """One on the loopback address ``here``; ``program``'s port 0 = not known yet. Raises ``OSError``."""
        if self._open >= MAX_ASSOCIATIONS:
            raise OSError(errno.EMFILE, "too many associations")
        made = Association(self._dialer, here, program, self._ended)
        self._open += 1
        return made

    def _ended(self) -> None:
        self._open -= 1


class Association:
    """``address`` is where the program sends its datagrams. To be closed once, which calls ``on_end``."""

    def __init__(self, dialer: Dialer, here: str, program: Address, on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._dialer = dialer
        self._program = program
        self._on_end = on_end
        self._partners: OrderedDict[Address, Partner] = OrderedDict()
        self._targets: dict[Target, Partner] = {}
        self._sockets: dict[tuple[bool, int], socket.socket] = {}  # by way and IP version
        self._opening = asyncio.Lock()
        self._last = self._loop.time()
        self._inner = socket.socket(socket.AF_INET6 if ":" in here else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._inner.setblocking(False)
            self._inner.bind((here, 0))
        except BaseException:
            self._inner.close()
            raise
        self._loop.add_reader(self._inner, self._from_program)

    @property
    def address(self) -> tuple[IPAddress, int]:
        host, port = self._inner.getsockname()[:2]
        return ipaddress.ip_address(host), port

    async def run(self, control: asyncio.StreamReader) -> None:
        """Until the connection that asked for it ends, or nothing has passed for long. Raises ``OSError``."""
        while (left := self._last + IDLE_SECONDS - self._loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    if not await control.read(MAX_READ_BYTES):
                        return

    def close(self) -> None:
        for sock in (self._inner, *self._sockets.values()):
            self._loop.remove_reader(sock)
            sock.close()
        for partner in self._partners.values():
            _give_up(partner)
        self._on_end()

    # --- out ---------------------------------------------------------------------------------------------

    def _from_program(self) -> None:
        with contextlib.suppress(OSError):
            for _ in range(MAX_DATAGRAMS_A_ROUND):
                datagram, source = self._inner.recvfrom(MAX_DATAGRAM_BYTES)
                if self._is_program(source[:2]) and (found := unwrap(datagram)):
                    host, port, data = found
                    self._send(self._partner(host, port), data)

    def _is_program(self, source: Address) -> bool:
        """From the address that asked for the association; whichever port speaks first is the one."""
        if source == self._program:
            return True
        if source[0] != self._program[0] or self._program[1]:
            return False
        self._program = source
        return True

    def _partner(self, host: str, port: int) -> Partner:
        key = (host, port)
        if key not in self._partners:
            if len(self._partners) >= MAX_PARTNERS:
                oldest = self._partners.popitem(last=False)[1]
                _give_up(oldest)
                self._unlist(oldest)
            self._partners[key] = Partner(host, port)
        self._partners.move_to_end(key)
        return self._partners[key]

    def _send(self, partner: Partner, data: bytes) -> None:
        self._last = now = self._loop.time()
        if now < partner.until and self._transmit(partner, data):
            return
        partner.waiting.append(data)
        if partner.task is None:
            partner.task = self._loop.create_task(self._find(partner))

    def _transmit(self, partner: Partner, data: bytes) -> bool:
        """``False`` when the way there is another one by now."""
        way = partner.way
        if partner.address is None or way is None or self._dialer.way(partner.address) != way:
            return False
        key = (way.by_tunnel, way.target.version)
        if (sock := self._sockets.get(key)) is None:
            return False
        try:
            sock.sendto(data, (str(way.target), partner.port))
        except OSError as error:
            if error.errno in GONE:
                self._drop(key)
        return True

    async def _find(self, partner: Partner) -> None:
        self._unlist(partner)
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                partner.address = (await self._dialer.resolve(partner.host))[0]
                partner.way = self._dialer.way(partner.address)
                await self._open(partner.way)
        except (OSError, ClientError):  # TimeoutError is an OSError; the next datagram tries again
            partner.waiting.clear()
            return
        finally:
            partner.task = None
        partner.until = self._loop.time() + NAME_SECONDS
        self._targets[partner.way, partner.port] = partner
        while partner.waiting:
            self._transmit(partner, partner.waiting.popleft())

    async def _open(self, way: Way) -> None:
        key = (way.by_tunnel, way.target.version)
        async with self._opening:
            if key not in self._sockets:
                sock = await self._dialer.open_socket(way, socket.SOCK_DGRAM)
                self._sockets[key] = sock
                self._loop.add_reader(sock, self._from_partners, key, sock)

    def _drop(self, key: tuple[bool, int]) -> None:
        sock = self._sockets.pop(key)
        self._loop.remove_reader(sock)
        sock.close()

    def _unlist(self, partner: Partner) -> None:
        """What comes from where the partner was is nobody's."""
        if partner.way is not None and self._targets.get((partner.way, partner.port)) is partner:
            del self._targets[partner.way, partner.port]

    # --- back --------------------------------------------------------------------------------------------

    def _from_partners(self, key: tuple[bool, int], sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for _ in range(MAX_DATAGRAMS_A_ROUND):
                data, source = sock.recvfrom(MAX_DATAGRAM_BYTES)
                target = ipaddress.ip_address(source[0].partition("%")[0])
                partner = self._targets.get((Way(target, by_tunnel=key[0]), source[1]))
                if partner is not None and partner.address is not None:
                    self._last = self._loop.time()
                    self._inner.sendto(wrapped(partner.address, partner.port, data), self._program)


def _give_up(partner: Partner) -> None:
    if partner.task is not None:
        partner.task.cancel()
