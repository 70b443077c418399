"""``trenzad``: reads its arguments and environment, puts the parts together, and takes them down at the end.

SIGTERM and SIGINT remove the tunnel; ``kill -9`` leaves it running, and the next start takes it over. Without
root (``--tun userspace``) the tunnel ends with the daemon in any case.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from client.authkey import read_auth_key
from client.backend import Backend
from client.c2n import Answerer
from client.commands import Commands
from client.control import dial as control
from client.control.carriers import CarrierKind
from client.dns.outside import addresses_outside
from client.dns.resolver import Resolver
from client.dns.service import Dns
from client.engine import Engine, choose_engine
from client.engine.base import USERSPACE
from client.engine.host import has_capabilities, require_capabilities, require_free_port
from client.errors import ClientError, SetupError
from client.exitnodes import ExitNodes
from client.follower import MakeTunnel
from client.hostinfo import program_version
from client.localapi.routes import Routes, operator_uid
from client.localapi.server import Server
from client.net.hostdns import HostDns
from client.net.monitor import Monitor
from client.net.nft import find_nft
from client.net.tablewatch import TableWatch
from client.oauthkey import AuthKey, parse_auth_key
from client.peerapi.api import PeerAPI
from client.peerapi.send import connect_by
from client.peerapi.server import listen_here
from client.places import ROOT, SOCKET, SYSTEM_SOCKET, SYSTEM_STATE, default_socket, default_state
from client.prefs import Prefs, normal_url
from client.proxy.dialer import Dialer
from client.proxy.server import Listen, make_proxies
from client.rootless.host import RootlessHost
from client.rootless.names import Names
from client.store import Store
from client.tunnel import Tunnel

logger = logging.getLogger("trenzad")

DEFAULT_TUN = "trenza0"
INTERFACE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
NETWORK_DEVICES = Path("/sys/class/net")
INBOX = "files"
ENDS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What trenzad was started with."""

    state: Path
    socket: Path
    tun: str
    port: int
    carrier: CarrierKind
    userspace: bool = False
    socks: Listen | None = None
    web: Listen | None = None
    control_url: str = ""
    auth_key: AuthKey = field(default="", repr=False)
    tags: tuple[str, ...] = ()

    @classmethod
    def read(
        cls, arguments: Sequence[str], environment: Mapping[str, str], *, uid: int | None = None
    ) -> Self:
        """Raises :class:`ClientError`; ends the process for ``--help`` and unknown options."""
        options = make_parser().parse_args(arguments)
        uid = os.geteuid() if uid is None else uid
        tun = options.tun or (DEFAULT_TUN if uid == ROOT or has_capabilities() else USERSPACE)
        if not INTERFACE_NAME.fullmatch(tun):
            raise SetupError(f"--tun {tun!r} is no interface name: up to 15 letters, digits, _ . -")
        if not 0 <= options.port <= 65535:
            raise SetupError(f"--port {options.port} is no UDP port: 0 (any) to 65535")
        return cls(
            state=options.state or default_state(environment, uid),
            socket=options.socket or default_socket(environment, uid),
            tun=DEFAULT_TUN if tun == USERSPACE else tun,
            userspace=tun == USERSPACE,
            socks=options.socks5_server and Listen.parse(options.socks5_server, "--socks5-server"),
            web=options.outbound_http_proxy_listen
            and Listen.parse(options.outbound_http_proxy_listen, "--outbound-http-proxy-listen"),
            port=options.port,
            carrier=CarrierKind(options.carrier),
            control_url=normal_url(environment.get("TRENZA_CONTROL_URL", "")),
            auth_key=parse_auth_key(read_auth_key(environment.get("TRENZA_AUTH_KEY", ""))),
            tags=read_tags(environment.get("TRENZA_ADVERTISE_TAGS", "")),
        )


def read_tags(text: str) -> tuple[str, ...]:
    """Tags, separated by commas; raises :class:`ClientError`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    return Prefs().edited({"AdvertiseTags": words}).advertise_tags


def make_parser() -> argparse.ArgumentParser:
    """The command line of trenzad."""
    parser = argparse.ArgumentParser(
        prog="trenzad",
        description="Trenza's client daemon. Use it through the command trenza.",
        epilog="Environment: TRENZA_CONTROL_URL (the server, when trenza up names none), TRENZA_AUTH_KEY "
        "(a key, an OAuth client's secret, or file:PATH with one of them: joins while this device has no "
        "identity), TRENZA_ADVERTISE_TAGS (the tags to join with, separated by commas).",
    )
    parser.add_argument(
        "--state",
        type=Path,
        help=f"folder of keys and preferences (root: {SYSTEM_STATE}; others: XDG_STATE_HOME/trenza)",
    )
    parser.add_argument(
        "--socket",
        type=Path,
        help=f"Unix socket for trenza (root: {SYSTEM_SOCKET}; others: XDG_RUNTIME_DIR/trenza/{SOCKET})",
    )
    parser.add_argument(
        "--tun",
        help=f"name of the network interface, or {USERSPACE}: none, in a network namespace of our own, which "
        f"needs no root (root: {DEFAULT_TUN}; others: {USERSPACE})",
    )
    parser.add_argument(
        "--socks5-server", metavar="ADDRESS", help="a SOCKS5 proxy into the tailnet, such as localhost:1055"
    )
    parser.add_argument(
        "--outbound-http-proxy-listen",
        metavar="ADDRESS",
        help="an HTTP proxy into the tailnet, such as localhost:1055",
    )
    parser.add_argument("--port", type=int, default=0, help="UDP port of WireGuard; 0: any, then kept")
    parser.add_argument(
        "--carrier",
        choices=[str(kind) for kind in CarrierKind],
        default=str(CarrierKind.WEBSOCKET),
        help="how the control protocol is carried",
    )
    parser.add_argument("--verbose", action="store_true", help="say more")
    parser.add_argument("--version", action="version", version=program_version())
    return parser


def check_host(config: Config) -> Engine:
    """The WireGuard to use; raises ``SetupError`` for what the host lacks, before anything is changed."""
    engine = choose_engine(config.tun)
    find_nft()
    if config.port and not (NETWORK_DEVICES / config.tun).exists():
        require_free_port(config.port)
    return engine


async def serve(config: Config) -> None:
    """Run until a signal; raises :class:`ClientError` for what keeps it from starting."""
    if not config.userspace:
        require_capabilities()
    store = Store(config.state)
    store.open()
    try:
        if config.userspace:
            await _serve_without_root(config, store)
        else:
            engine = check_host(config)
            await _serve(
                config,
                store,
                lambda endpoints, net_info: Tunnel(
                    engine=engine, on_endpoints=endpoints, on_net_info=net_info
                ),
            )
    finally:
        store.close()


async def _serve_without_root(config: Config, store: Store) -> None:
    host = RootlessHost(config.tun, [place.port for place in (config.socks, config.web) if place])
    try:
        await host.prepare(config.port)
        await _serve(config, store, host.make_tunnel, host)
    finally:
        await host.namespace.close()


async def _serve(
    config: Config, store: Store, make_tunnel: MakeTunnel, rootless: RootlessHost | None = None
) -> None:
    backend = Backend(
        store=store,
        make_tunnel=make_tunnel,
        kind=config.carrier,
        dialer=control.Dialer(outside=addresses_outside if rootless is None else None),
        default_url=config.control_url,
        auth_key=config.auth_key,
        tags=config.tags,
        port=config.port,
    )
    backend.dns = Dns(
        interface=config.tun,
        host=HostDns(config.tun, store.folder),
        on_trouble=backend.announce,
        touch_host=rootless is None,
        resolver=Resolver(open_socket=rootless.open_for_dns) if rootless else None,
    )
    dialer = Dialer(backend.in_force)
    if rootless is not None:
        names = Names(backend.dns, lambda: rootless.ways.hides)
        dialer = Dialer(backend.in_force, rootless, names.look_up)
    backend.peerapi = PeerAPI(
        backend.in_force,
        lambda: store.folder / INBOX,
        resolve=backend.dns.answer_peer,
        shields_up=lambda: store.prefs.shields_up,
        listen=rootless.listen if rootless else listen_here,
        connect=connect_by(dialer.dial),
    )
    if rootless is not None:
        rootless.namespace.on_end = backend.link_changed
    commands = Commands(backend)
    backend.answer = Answerer(
        rotate=commands.rotate, ping=commands.ping_for_server, set_exit_node=ExitNodes(backend).set_by_admin
    ).answer
    routes = Routes(backend, commands)
    server = Server(config.socket, routes.handle, lambda: operator_uid(store.prefs.operator))
    proxies = make_proxies(config.socks, config.web, dialer)
    await server.start()
    monitor = Monitor(ignore=config.tun, on_change=backend.link_changed)
    logger.info("trenzad %s on %s, state in %s", program_version(), config.socket, config.state)
    try:
        for proxy in proxies:
            await proxy.start()
        work = [backend.run(), monitor.run()]
        if rootless is None:  # in a network of our own nobody else sets filters
            work.append(TableWatch(backend.tunnel.keep_filter).run())
        await _until_signal(work)
    finally:
        for proxy in proxies:
            await proxy.close()
        await server.close()
        await backend.close()


async def _until_signal(doing: Iterable[Coroutine[Any, Any, None]]) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in ENDS:
        loop.add_signal_handler(number, ended.set)
    work = [asyncio.create_task(one) for one in doing]
    waiter = asyncio.create_task(ended.wait())
    try:
        done, _ = await asyncio.wait({*work, waiter}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {waiter}:
            task.result()  # none ends by itself: what it raises is the reason
    finally:
        for task in (*work, waiter):
            task.cancel()
        await asyncio.gather(*work, waiter, return_exceptions=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console command. Exit status 1 and one line on stderr when it cannot start."""
    try:
        config = Config.read(sys.argv[1:] if arguments is None else arguments, os.environ)
        verbose = "--verbose" in (sys.argv if arguments is None else arguments)
        logging.basicConfig(
            level=logging.DEBUG if verbose else logging.INFO,
            format="%(name)s: %(message)s",
            stream=sys.stderr,
        )
        logging.getLogger("websockets").setLevel(logging.WARNING)
        logging.getLogger("pyroute2").setLevel(logging.WARNING)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(config))
    except ClientError as error:
        print(f"trenzad: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
