"""The node: its state, its control session, its tunnel, and what the local API asks of it.

Facts change here (a preference, a map message, a login); :func:`client.state.duties` says what follows, and
two workers carry that out: the control loop runs or not, the tunnel follows the netmap or is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from client.c2n import Answerer
from client.control.carriers import CarrierKind
from client.control.dial import Backoff, Dialer
from client.control.loop import ControlLoop, Login, tell_logout
from client.control.session import Session
from client.errors import ClientError, ControlError, LoginError, PeerNotFound, PrefsError
from client.hostinfo import own_hostinfo, own_hostname, program_version
from client.magicsock.endpoints import Endpoint, format_address
from client.magicsock.sock import PathStatus, PingResult
from client.prefs import Prefs
from client.state import Facts, State, duties, is_expired, state_of
from client.status import Situation, find_node, netcheck_json, status_json, whois_json
from client.store import Store, netmap_json
from client.tunnel import Keys, Ports, Sock, Tunnel
from wire.control import CAPABILITY_VERSION, Hostinfo, MapRequest, NetInfo
from wire.delta import apply
from wire.keys import DiscoPrivate, NodePublic
from wire.netmap import MapResponse, NetMap, Node

logger = logging.getLogger("trenzad")

SAVE_PAUSE_SECONDS = 1.0
LOGOUT_SECONDS = 5.0
SETTLE_SECONDS = 20.0
ENTROPY_BYTES = 32
MAX_WATCHERS = 64
MAX_NOTICES = 256
MAX_TIMER_SECONDS = 24 * 3600.0
NO_SERVER = (
    "no server is set: give trenza up --login-server=URL, or start trenzad with TRENZA_CONTROL_URL set"
)
Notice = dict[str, Any]
MakeTunnel = Callable[[Callable[[tuple[Endpoint, ...]], None], Callable[[NetInfo], None]], Tunnel]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Backend:
    """``default_url`` and ``auth_key`` are trenzad's environment; ``clock`` is the host's time."""

    def __init__(
        self,
        *,
        store: Store,
        make_tunnel: MakeTunnel,
        kind: CarrierKind = CarrierKind.WEBSOCKET,
        dialer: Dialer | None = None,
        default_url: str = "",
        auth_key: str = "",
        port: int = 0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.store = store
        self.kind = kind
        self.report_changed = asyncio.Event()
        self.tunnel = make_tunnel(self._on_endpoints, self._on_net_info)
        self._dialer = dialer or Dialer()
        self._default_url = default_url
        self._auth_key = auth_key
        self._asked_port = port
        self._clock = clock
        self._clock_offset = timedelta()
        self._disco = DiscoPrivate.generate(os.urandom(ENTROPY_BYTES))
        self._netmap: NetMap | None = None
        self._fresh_stream = True
        self._key_good = True
        self._login: Login | None = None
        self._control: ControlLoop | None = None
        self._control_task: asyncio.Task[None] | None = None
        self._started = False
        self._is_connected = False
        self._troubles: dict[str, str] = {}
        self._endpoints: tuple[Endpoint, ...] = ()
        self._net_info: NetInfo | None = None
        self._tunnel_changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._save = asyncio.Event()
        self._watchers: set[asyncio.Queue[Notice]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._answerer = Answerer(rotate=self.rotate, ping=self._ping_for_server)
        self._changing = asyncio.Lock()  # one login, logout or rotation at a time

    # --- running -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until cancelled. The tunnel is still as it was then: see :meth:`close`."""
        self._netmap = self.store.load_netmap()
        if self._netmap is not None:
            logger.info("starting with the network map of the last run")
        self._begin_login_from_environment()
        self._started = True
        self._reconcile()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._drive_tunnel())
                group.create_task(self._save_netmaps())
        finally:
            self._stop_control()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._expiry_timer is not None:
                self._expiry_timer.cancel()

    async def close(self) -> None:
        """After :meth:`run`: take the tunnel down, keep the last netmap for the next start."""
        await self.tunnel.down(keep=False)
        if self._netmap is not None and self.store.identity.node is not None:
            self.store.save_netmap(self._netmap)

    def _begin_login_from_environment(self) -> None:
        """TRENZA_AUTH_KEY joins a node that has no key yet; the server may come up later than we do."""
        prefs = self.store.prefs
        url = prefs.control_url or self._default_url
        if self._auth_key and url and self.store.identity.node is None and not prefs.logged_out:
            wanted = prefs.edited({"ControlURL": url, "WantRunning": True})
            self._login = Login(url=url, prefs=wanted, auth_key=self._auth_key, patient=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- state -------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return state_of(self._facts())

    def _facts(self) -> Facts:
        netmap = self._netmap
        expired = netmap is not None and is_expired(netmap, self.now())
        return Facts(
            started=self._started,
            has_key=self.store.identity.node is not None,
            want_running=self.store.prefs.want_running,
            key_good=self._key_good and not expired,
            has_netmap=netmap is not None,
            authorized=netmap is not None and netmap.node.machine_authorized,
            tunnel_up=self.tunnel.is_up,
            login_open=self._login is not None,
        )

    def now(self) -> datetime:
        """The time as the server has it, as far as we know."""
        return self._clock() + self._clock_offset

    def _reconcile(self) -> None:
        """Have the control loop run or not, wake the tunnel's worker, tell who watches."""
        if duties(self._facts()).control:
            if self._control_task is None:
                self._start_control()
        else:
            self._stop_control()
        self._tunnel_changed.set()
        self._announce()

    def _announce(self, error: ClientError | None = None) -> None:
        notice = self.notice(error)
        for queue in self._watchers:
            if queue.full():  # who does not read gets the newest only
                queue.get_nowait()
            queue.put_nowait(notice)

    def notice(self, error: ClientError | None = None) -> Notice:
        """What a watcher is told: the state, and an error that just ended something."""
        login = self._login
        return {
            "State": str(self.state),
            "AuthURL": login.auth_url if login else "",
            "LoginOpen": login is not None,
            "ControlURL": login.url if login else self.control_url,
            "Connected": self._is_connected,
            "Health": self.health(),
            "Error": {"Code": error.code, "Message": str(error)} if error else None,
        }

    def watch(self) -> asyncio.Queue[Notice]:
        """A queue of notices, the present one first; give it back to :meth:`unwatch`."""
        if len(self._watchers) >= MAX_WATCHERS:
            raise ClientError("too many programs watch this daemon already")
        queue: asyncio.Queue[Notice] = asyncio.Queue(MAX_NOTICES)
        queue.put_nowait(self.notice())
        self._watchers.add(queue)
        return queue

    def unwatch(self, queue: asyncio.Queue[Notice]) -> None:
        self._watchers.discard(queue)

    def health(self) -> list[str]:
        """What is wrong now, in sentences."""
        own = [text for _, text in sorted(self._troubles.items())]
        return own + list(self._netmap.health if self._netmap else ())

    @property
    def control_url(self) -> str:
        return self.store.identity.control_url or self.store.prefs.control_url or self._default_url

    # --- the control session's owner ---------------------------------------------------------------------

    def _start_control(self) -> None:
        url = self._login.url if self._login else self.control_url
        self._control = ControlLoop(self, self.store, self._dialer, self.kind, url, self._login)
        self._control_task = self._spawn(self._run_control(self._control))

    async def _run_control(self, loop: ControlLoop) -> None:
        try:
            await loop.run()
        except ControlError as error:
            self._login_failed(error)

    def _stop_control(self) -> None:
        if self._control_task is not None:
            self._control_task.cancel()
            self._control_task = self._control = None
            self._troubles.pop("control", None)

    def _login_failed(self, error: ControlError) -> None:
        """The login is over; what was before it goes on."""
        self._login = self._control_task = self._control = None
        if isinstance(error, LoginError):
            self.store.set_identity(pending=None, rotating=False)
            self._troubles["login"] = f"sign-in refused: {error}"
        logger.warning("login failed: %s", error)
        self._reconcile()
        self._announce(error)

    def hostinfo(self) -> Hostinfo:
        prefs = self._login.prefs if self._login else self.store.prefs
        return own_hostinfo(prefs, self._net_info)

    def report(self) -> MapRequest:
        node = self.store.identity.node
        return MapRequest(
            version=CAPABILITY_VERSION,
            node_key=node.public() if node else NodePublic.zero(),
            disco_key=self._disco.public(),
            hostinfo=self.hostinfo(),
            endpoints=tuple(str(endpoint) for endpoint in self._endpoints),
            endpoint_types=tuple(int(endpoint.type) for endpoint in self._endpoints),
        )

    def connected(self, connected: bool) -> None:
        self._is_connected = connected
        self._fresh_stream = True
        if connected:
            self._troubles.pop("control", None)
        if self.tunnel.sock is not None:
            self.tunnel.sock.set_connected(connected)
        self._announce()

    def show_auth_url(self, url: str) -> None:
        logger.info("to authenticate, visit %s", url)
        self._announce()

    def logged_in(self, login: Login, *, moved: bool) -> None:
        if moved:
            self._netmap = None
            self.store.forget_netmap()
        self.store.set_prefs(login.prefs)
        self._login = None
        self._key_good = True
        self._troubles.pop("login", None)
        self._reconcile()

    def node_key_replaced(self) -> None:
        self._reconcile()

    def key_refused(self, why: str) -> None:
        self._key_good = False
        self._troubles["login"] = why
        self._reconcile()

    def map_message(self, message: MapResponse) -> None:
        """Take one message whole or not at all; the first of a stream stands for itself."""
        if message.control_time is not None:
            self._clock_offset = message.control_time - self._clock()
        if message.keep_alive:
            return
        base = None if self._fresh_stream else self._netmap
        self._netmap = apply(base, message, self.now())
        self._fresh_stream = False
        if not is_expired(self._netmap, self.now()):
            self._key_good = True
            self._troubles.pop("login", None)
        self._plan_expiry(self._netmap)
        self._save.set()
        self._reconcile()

    def question(self, session: Session, message: MapResponse) -> None:
        if message.ping_request is not None:
            self._spawn(self._answerer.answer(session, message.ping_request))

    def trouble(self, error: ControlError) -> None:
        self._troubles["control"] = f"no control connection: {error}"
        self._announce()

    def _plan_expiry(self, netmap: NetMap) -> None:
        """Look at the state again when this node's key runs out."""
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        if netmap.node.key_expiry is not None:
            left = (netmap.node.key_expiry - self.now()).total_seconds() + 11
            if left > 0:
                loop = asyncio.get_running_loop()
                self._expiry_timer = loop.call_later(min(left, MAX_TIMER_SECONDS), self._expiry_due)

    def _expiry_due(self) -> None:
        self._reconcile()
        if self._netmap is not None:
            self._plan_expiry(self._netmap)

    async def _save_netmaps(self) -> None:
        while True:
            await self._save.wait()
            self._save.clear()
            netmap = self._netmap
            if netmap is not None:
                try:
                    await asyncio.to_thread(self.store.save_netmap, netmap)
                    self._troubles.pop("save", None)
                except ClientError as error:
                    self._troubles["save"] = str(error)
            await asyncio.sleep(SAVE_PAUSE_SECONDS)

    # --- the tunnel --------------------------------------------------------------------------------------

    def link_changed(self) -> None:
        """The host's network changed."""
        if self.tunnel.sock is not None:
            self.tunnel.sock.link_changed()
        if self._control is not None:
            self._control.hurry()

    def _on_endpoints(self, endpoints: tuple[Endpoint, ...]) -> None:
        if endpoints != self._endpoints:
            self._endpoints = endpoints
            self.report_changed.set()

    def _on_net_info(self, net_info: NetInfo) -> None:
        if net_info != self._net_info:
            self._net_info = net_info
            self.report_changed.set()

    async def _drive_tunnel(self) -> None:
        """One change after another; always towards the newest netmap."""
        backoff = Backoff()
        while True:
            self._tunnel_changed.clear()
            try:
                await self._follow_netmap()
            except ClientError as error:
                self._troubles["tunnel"] = f"no tunnel: {error}"
                logger.warning("%s", error)
                self._announce(error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.next()):
                        await self._tunnel_changed.wait()
                continue
            backoff.reset()
            self._troubles.pop("tunnel", None)
            if not self._tunnel_changed.is_set():
                self._settled.set()
            await self._tunnel_changed.wait()

    async def _follow_netmap(self) -> None:
        wanted, netmap, node = duties(self._facts()).tunnel, self._netmap, self.store.identity.node
        if not wanted or netmap is None or node is None:
            if self.tunnel.is_up:
                await self.tunnel.down(keep=False)
                self._endpoints, self._net_info = (), None
                self._announce()
            return
        shields_up = self.store.prefs.shields_up
        if self.tunnel.is_up:
            await self.tunnel.apply(netmap, node, shields_up=shields_up)
            return
        keys = Keys(node=node, disco=self._disco)
        ports = Ports(asked=self._asked_port, kept=self.store.identity.listen_port)
        await self.tunnel.up(netmap, keys, ports=ports, shields_up=shields_up)
        self.store.set_identity(listen_port=self.tunnel.listen_port)
        if self.tunnel.sock is not None:
            self.tunnel.sock.set_connected(self._is_connected)
        self._announce()

    # --- what the local API asks -------------------------------------------------------------------------

    async def up(self, changes: Mapping[str, Any], *, auth_key: str = "", force_reauth: bool = False) -> None:
        """Come up, signing in first where that is needed; how it goes is told to watchers."""
        async with self._changing:
            prefs = self.store.prefs.edited({**changes, "WantRunning": True})
            url = prefs.control_url or self._default_url
            if not url:
                raise PrefsError(NO_SERVER)
            prefs = prefs.edited({"ControlURL": url, "LoggedOut": False})
            identity = self.store.identity
            needs_login = identity.node is None or identity.control_url != url
            if needs_login or force_reauth or not self._facts().key_good:
                self._begin_login(Login(url=url, prefs=prefs, auth_key=auth_key))
            else:
                self._set_prefs(prefs)
            self._reconcile()

    def _begin_login(self, login: Login) -> None:
        self._troubles.pop("login", None)
        self._stop_control()
        self._login = login

    def _set_prefs(self, prefs: Prefs) -> None:
        before = self.store.prefs
        self.store.set_prefs(prefs)
        if (prefs.hostname, prefs.advertise_tags, prefs.shields_up) != (
            before.hostname,
            before.advertise_tags,
            before.shields_up,
        ):
            self.report_changed.set()

    def edit_prefs(self, changes: Mapping[str, Any]) -> Prefs:
        """Change what can be changed without signing in; raises :class:`PrefsError`."""
        prefs = self.store.prefs.edited(changes)
        if prefs.control_url != self.store.prefs.control_url:
            raise PrefsError("the server is changed by signing in to it: trenza up --login-server=URL")
        self._set_prefs(prefs)
        self._reconcile()
        return prefs

    async def down(self) -> None:
        """Stop: no tunnel, no control session. Returns when the tunnel is down."""
        async with self._changing:
            self._login = None
            self.store.set_prefs(self.store.prefs.edited({"WantRunning": False}))
            await self._settle()

    async def logout(self) -> str:
        """End this node's key and forget it; returns a warning when the server could not be told."""
        async with self._changing:
            self._login = None
            self._stop_control()
            warning = ""
            try:
                async with asyncio.timeout(LOGOUT_SECONDS):
                    await tell_logout(self.store, self._dialer, self.kind, self.hostinfo())
            except (ControlError, TimeoutError) as error:
                why = str(error) or "it did not answer"
                warning = f"signed out here, but the server was not told ({why}): remove the device there"
            self._netmap = None
            self.store.set_prefs(self.store.prefs.edited({"WantRunning": False, "LoggedOut": True}))
            self.store.set_identity(node=None, pending=None, rotating=False)
            self.store.forget_netmap()
            self._key_good = True
            await self._settle()
            return warning

    async def _settle(self) -> None:
        """Have the tunnel follow what was just decided, and wait for that."""
        self._settled.clear()
        self._reconcile()
        async with asyncio.timeout(SETTLE_SECONDS):
            await self._settled.wait()

    async def rotate(self) -> None:
        """A new node key, same node and addresses; raises :class:`ControlError`."""
        async with self._changing:
            if self._control is None or self.store.identity.node is None:
                raise ControlError("there is no node key to rotate: trenza up first")
            await self._control.rotate()
            self.report_changed.set()
            self._save.set()
            await self._settle()

    async def ping(self, target: str, timeout: float) -> dict[str, Any]:  # noqa: ASYNC109
        """One disco ping; raises ``PeerNotFound``, ``PingTimeout``."""
        netmap, sock = self._running()
        node = find_node(netmap, target)
        if node is None:
            raise PeerNotFound(f"no peer {target!r}: trenza status lists them")
        if node.id == netmap.node.id:
            return _pong(node) | {"IsLocalIP": True}
        return _pong(node, await sock.ping(node.id, timeout))

    async def _ping_for_server(self, ip: str) -> dict[str, Any]:
        try:
            return {"Type": "disco", "IP": ip} | await self.ping(ip, 10.0)
        except ClientError as error:
            return {"Type": "disco", "IP": ip, "Err": str(error)}

    async def netcheck(self) -> dict[str, Any]:
        netmap, sock = self._running()
        return netcheck_json(await sock.netcheck(), netmap.derp_map, now=self.now())

    def whois(self, text: str) -> dict[str, Any]:
        node = find_node(self.need_netmap(), text)
        if node is None:
            raise PeerNotFound(f"no node {text!r} in this tailnet")
        return whois_json(self.need_netmap(), node)

    def netmap_json(self) -> dict[str, Any]:
        return netmap_json(self.need_netmap())

    def need_netmap(self) -> NetMap:
        if self._netmap is None:
            raise ClientError(f"there is no network map yet (state {self.state}): trenza up first")
        return self._netmap

    def _running(self) -> tuple[NetMap, Sock]:
        netmap = self.need_netmap()
        if self.tunnel.sock is None:
            raise ClientError(f"the tunnel is not up (state {self.state}): trenza up first")
        return netmap, self.tunnel.sock

    def status(self, *, peers: bool = True) -> dict[str, Any]:
        identity = self.store.identity
        situation = Situation(
            version=program_version(),
            state=self.state,
            tun=True,
            node_key=identity.node.public() if identity.node else None,
            auth_url=self._login.auth_url if self._login else "",
            health=self.health(),
            control_url=self._login.url if self._login else self.control_url,
            carrier=str(self.kind),
            connected=self._is_connected,
            hostname=own_hostname(self.store.prefs),
            now=self.now(),
            netmap=self._netmap,
            endpoints=[str(endpoint) for endpoint in self._endpoints],
            home_region=self._net_info.preferred_derp if self._net_info else 0,
            paths=self._paths() if peers else {},
        )
        return status_json(situation, peers=peers)

    def _paths(self) -> dict[int, PathStatus]:
        sock, paths = self.tunnel.sock, {}
        if sock is not None and self._netmap is not None:
            for node_id in self._netmap.peers:
                try:
                    paths[node_id] = sock.path_status(node_id)
                except PeerNotFound:  # the newest netmap is not in the tunnel yet
                    continue
        return paths


def _pong(node: Node, result: PingResult | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {
        "IP": node.addresses[0].partition("/")[0] if node.addresses else "",
        "NodeIP": node.addresses[0].partition("/")[0] if node.addresses else "",
        "NodeName": node.name.partition(".")[0],
        "LatencySeconds": result.latency if result else 0.0,
    }
    if result is not None and result.endpoint is not None:
        content["Endpoint"] = format_address(result.endpoint)
    elif result is not None:
        content |= {"DERPRegionID": result.derp_region, "DERPRegionCode": result.derp_code}
    return content
