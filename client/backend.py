"""The node: its facts, and the two workers that carry out what follows from them.

Facts change by a map message, a login or a command (:mod:`client.commands`); :func:`client.state.duties` says
what follows: the control loop runs or not, the tunnel follows the newest netmap or is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from client.control.carriers import CarrierKind
from client.control.dial import Backoff, Dialer
from client.control.loop import MAX_CLOCK_SKEW, ControlLoop, Login
from client.control.session import Session
from client.dns.service import Dns, wanted_dns
from client.errors import ClientError, ControlError, LoginError
from client.hostinfo import own_hostinfo
from client.magicsock.endpoints import Endpoint
from client.magicsock.results import PathStatus
from client.memory import give_back
from client.notices import Notice, Watchers
from client.pathreports import PathReporter
from client.peerapi.api import PeerAPI
from client.prefixes import tailnet_addresses
from client.prefs import Prefs
from client.renewal import Renewal
from client.routing import resolved
from client.servertime import ServerTime
from client.sleep import SleepWatch
from client.state import Facts, State, duties, is_expired, next_expiry, state_of, without_expired
from client.store import Store
from client.tunnel import Keys, Ports, Tunnel
from client.wayout import BLOCKED, Reduction, guarding, routing_health
from wire.control import CAPABILITY_VERSION, Hostinfo, MapRequest, NetInfo, PingRequest, Service
from wire.delta import apply
from wire.keys import DiscoPrivate, NodePublic
from wire.netmap import MapResponse, NetMap

logger = logging.getLogger("trenzad")

SAVE_PAUSE_SECONDS = 0.2  # what a killed daemon may not have kept: at its return it would drop newer peers
MANY_PEERS = 200  # a netmap of this many takes memory worth giving back
SAVED_PEERS_PER_SECOND = 400  # a large netmap is written less often: about 1 % of a core
SETTLE_SECONDS = 20.0
BUG_PAUSE_SECONDS = 10.0
ENTROPY_BYTES = 32
MAX_TIMER_SECONDS = 24 * 3600.0
MakeTunnel = Callable[[Callable[[tuple[Endpoint, ...]], None], Callable[[NetInfo], None]], Tunnel]
Answer = Callable[[Session, PingRequest], Coroutine[Any, Any, None]]


class Backend:
    """``default_url`` and ``auth_key`` are trenzad's environment."""

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
        time: ServerTime | None = None,
    ) -> None:
        self.store = store
        self.kind = kind
        self.dialer = dialer or Dialer()
        self.default_url = default_url
        self.tunnel = make_tunnel(self._on_endpoints, self._on_net_info)
        self.watchers = Watchers()
        self.netmap: NetMap | None = None
        self.login: Login | None = None
        self.control: ControlLoop | None = None
        self.is_connected = False
        self.endpoints: tuple[Endpoint, ...] = ()
        self.net_info: NetInfo | None = None
        self.report_changed = asyncio.Event()
        self.answer: Answer | None = None
        self.rotate: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.peerapi: PeerAPI | None = None
        self.dns: Dns | None = None
        self._auth_key = auth_key
        self._asked_port = port
        self._time = time or ServerTime()
        self._shown: NetMap | None = None  # the netmap in force
        self._reduction = Reduction()  # of it, to what the tunnel is given
        self._services: tuple[Service, ...] = ()
        self._disco = DiscoPrivate.generate(os.urandom(ENTROPY_BYTES))
        self._started = False
        self._fresh_stream = True
        self._key_good = True
        self._if_refused: Login | None = None
        self._troubles: dict[str, str] = {}
        self._control_task: asyncio.Task[None] | None = None
        self._may_be_left = True
        self._may_be_dead = False
        self._tunnel_changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._save = asyncio.Event()
        self._saving = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._expiry_timer: asyncio.TimerHandle | None = None

    # --- running -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until cancelled. The tunnel is still as it was then: see :meth:`close`."""
        self._load_account()
        self._begin_login_from_environment()
        await self._stop_dns()  # a killed daemon's: nobody answers there, and the server has to be found
        self._started = True
        self.reconcile()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._drive_tunnel())
                group.create_task(self._save_netmaps())
                group.create_task(SleepWatch(on_wake=self.woke).run())
                group.create_task(
                    Renewal(netmap=lambda: self.netmap, now=self.now, rotate=self._rotate).run()
                )
                group.create_task(self._path_reporter().run())
        finally:
            self._stop_control()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._expiry_timer is not None:
                self._expiry_timer.cancel()

    def _load_account(self) -> None:
        """Begin with what is known of the account in use."""
        self.netmap = self.store.load_netmap()
        if self.netmap is not None:
            logger.info("starting with the network map of the last run")
            self._plan_expiry(self.netmap)
            self._describe_account(self.netmap)

    async def change_account(self, change: Callable[[], None]) -> None:
        """Let go of the account in use, and go on with the one that ``change`` puts into the store.

        Raises ``ClientError``, what ``change`` raises (the account in use goes on then), ``TimeoutError``.
        """
        self.cancel_login()
        self._started = False
        try:
            await self.settle()
            async with self._saving:
                if self.netmap is not None and self.store.identity.node is not None:
                    self.store.save_netmap(self.netmap)
                change()
            self._forget_account()
            self._load_account()
        finally:
            self._started = True
            self.reconcile()

    def _forget_account(self) -> None:
        self.login = self._if_refused = self.netmap = self._shown = None
        self._key_good = self._fresh_stream = True
        self._troubles.clear()
        self._disco = DiscoPrivate.generate(os.urandom(ENTROPY_BYTES))

    def _describe_account(self, netmap: NetMap) -> None:
        """For the list of accounts; should the disk be full, that is all it lacks."""
        try:
            self.store.describe_profile(netmap)
        except ClientError as error:
            logger.info("%s", error)

    async def close(self) -> None:
        """After :meth:`run`: take down the tunnel, also a killed daemon's; keep the last netmap."""
        if self.peerapi is not None:
            await self.peerapi.serve_on(())
        await self._stop_dns()
        if self.tunnel.is_up or self._may_be_left:
            await self.tunnel.down(keep=False)
        await self.tunnel.guard(None)
        if self.netmap is not None and self.store.identity.node is not None:
            self.store.save_netmap(self.netmap)

    def _path_reporter(self) -> PathReporter:
        def live() -> dict[int, PathStatus]:
            return self.tunnel.sock.live_paths() if self.tunnel.sock is not None else {}

        def key() -> NodePublic | None:
            node = self.store.identity.node
            return node.public() if node is not None else None

        return PathReporter(
            live=live, session=lambda: self.control.session if self.control else None, key=key
        )

    def _begin_login_from_environment(self) -> None:
        """TRENZA_AUTH_KEY joins a node that has no key yet; the server may come up later than we do."""
        prefs = self.store.prefs
        url = prefs.control_url or self.default_url
        if self._auth_key and url and self.store.identity.node is None and not prefs.logged_out:
            wanted = prefs.edited({"ControlURL": url, "WantRunning": True})
            self.login = Login(url=url, prefs=wanted, auth_key=self._auth_key, patient=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- state -------------------------------------------------------------------------------------------

    @property
    def facts(self) -> Facts:
        netmap = self.netmap
        expired = netmap is not None and is_expired(netmap, self.now())
        return Facts(
            started=self._started,
            has_key=self.store.identity.node is not None,
            want_running=self.store.prefs.want_running,
            key_good=self._key_good and not expired,
            has_netmap=netmap is not None,
            authorized=netmap is not None and netmap.node.machine_authorized,
            tunnel_up=self.tunnel.is_up,
            login_open=self.login is not None,
        )

    @property
    def state(self) -> State:
        return state_of(self.facts)

    @property
    def control_url(self) -> str:
        """The server that this node belongs to, is joining, or would join."""
        if self.login is not None:
            return self.login.url
        return self.store.identity.control_url or self.store.prefs.control_url or self.default_url

    def now(self) -> datetime:
        """The time as the server has it, as far as we know."""
        return self._time.now()

    def health(self) -> list[str]:
        """What is wrong now, in sentences."""
        own = [text for _, text in sorted(self._troubles.items())]
        if self.dns is not None and self.dns.trouble:
            own.append(self.dns.trouble)
        if abs(skew := self._time.skew()) > MAX_CLOCK_SKEW:
            minutes = round(skew.total_seconds() / 60)
            own.append(f"this machine's clock is not the server's ({minutes:+d} min): set it")
        return own + self._routing_health() + list(self.netmap.health if self.netmap else ())

    def _routing_health(self) -> list[str]:
        """What is wrong with the exit node that is used, and with what this node offers."""
        if self.tunnel.is_up and self.netmap is not None:
            return routing_health(self.netmap, self.store.prefs, self.tunnel.troubles)
        return [BLOCKED] if self._guarding() else []

    def reconcile(self) -> None:
        """Have the control loop run or not, wake the tunnel's worker, tell who watches."""
        if duties(self.facts).control:
            if self._control_task is None:
                self._start_control()
        else:
            self._stop_control()
        self._tunnel_changed.set()
        self.announce()

    async def settle(self) -> None:
        """Reconcile, and wait until the tunnel is as decided; raises ``TimeoutError``."""
        self._settled.clear()
        self.reconcile()
        async with asyncio.timeout(SETTLE_SECONDS):
            await self._settled.wait()

    def announce(self, error: ClientError | None = None) -> None:
        self.watchers.tell(self.notice(error))

    def notice(self, error: ClientError | None = None) -> Notice:
        """What a watcher is told: the state, and an error that just ended something."""
        return {
            "State": str(self.state),
            "AuthURL": self.login.auth_url if self.login else "",
            "LoginOpen": self.login is not None,
            "ControlURL": self.control_url,
            "Connected": self.is_connected,
            "Health": self.health(),
            "Error": {"Code": error.code, "Message": str(error)} if error else None,
        }

    def _in_trouble(self, subject: str, text: str) -> None:
        """Say once what is wrong, and keep it in the health until it is over."""
        if self._troubles.get(subject) != text:
            logger.warning("%s", text)
            self._troubles[subject] = text

    def _well(self, subject: str) -> None:
        self._troubles.pop(subject, None)

    # --- signing in, and preferences ---------------------------------------------------------------------

    def begin_login(self, login: Login) -> None:
        """Register anew as ``login`` says; what was before it holds until it succeeds."""
        self._well("login")
        self._stop_control()
        self.login, self._if_refused = login, None

    def come_up(self, prefs: Prefs, if_refused: Login) -> None:
        """Run under the key that is there; should the server refuse that, sign in as ``if_refused``."""
        self._if_refused = if_refused
        self.set_prefs(prefs)

    def cancel_login(self) -> None:
        self.login = self._if_refused = None
        self._stop_control()

    def forget_node(self) -> None:
        """No node key, no netmap: this device has to sign in again."""
        self.netmap = None
        self.store.set_identity(node=None, pending=None, rotating=False)
        self.store.forget_netmap()
        self._key_good = True
        self._well("login")

    def set_prefs(self, prefs: Prefs) -> None:
        self.store.set_prefs(prefs)
        self.report_changed.set()

    # --- the control session, and being its owner --------------------------------------------------------

    def _start_control(self) -> None:
        self.control = ControlLoop(self, self.store, self.dialer, self.kind, self.control_url, self.login)
        self._control_task = self._spawn(self._run_control(self.control))

    def _stop_control(self) -> None:
        if self._control_task is not None:
            self._control_task.cancel()
            self._control_task = self.control = None
            self._well("control")

    async def _run_control(self, loop: ControlLoop) -> None:
        try:
            await loop.run()
        except ControlError as error:
            self._control_ended(error)
        except ClientError as error:  # a full disk, say: nothing that the server has to do with
            self._in_trouble("control", f"no control connection: {error}")
            await asyncio.sleep(BUG_PAUSE_SECONDS)
            self._control_ended(ControlError(str(error)))
        except Exception:  # a bug must not end the tunnel: say so, and begin again
            logger.exception("the control session failed")
            await asyncio.sleep(BUG_PAUSE_SECONDS)
            self._control_ended(ControlError("the control session failed: see trenzad's log"))

    def _control_ended(self, error: ControlError) -> None:
        """A login is over without success; what was before it goes on."""
        if self.login is not None:
            logger.warning("login failed: %s", error)
        self.login = self._control_task = self.control = None
        if isinstance(error, LoginError):
            self.store.set_identity(pending=None, rotating=False)
            self._troubles["login"] = f"sign-in refused: {error}"
        self.reconcile()
        self.announce(error)

    def hostinfo(self) -> Hostinfo:
        prefs = self.login.prefs if self.login else self.store.prefs
        return own_hostinfo(prefs, self.net_info, self._services, userspace=self.tunnel.is_userspace)

    def report(self) -> MapRequest:
        node = self.store.identity.node
        return MapRequest(
            version=CAPABILITY_VERSION,
            node_key=node.public() if node else NodePublic.zero(),
            disco_key=self._disco.public(),
            hostinfo=self.hostinfo(),
            endpoints=tuple(str(endpoint) for endpoint in self.endpoints),
            endpoint_types=tuple(int(endpoint.type) for endpoint in self.endpoints),
        )

    def connected(self, connected: bool) -> None:
        self.is_connected = connected
        self._fresh_stream = True
        if connected:
            self._well("control")
        if self.tunnel.sock is not None:
            self.tunnel.sock.set_connected(connected)
        self.announce()

    def show_auth_url(self, url: str) -> None:
        logger.info("waiting for a person to sign in; trenza status shows the address to visit")
        self.announce()

    def logged_in(self, login: Login, *, moved: bool) -> None:
        if moved:
            self.netmap = None
            self.store.forget_netmap()
        self.store.set_prefs(login.prefs)
        self.login = None
        self._key_good = True
        self._well("login")
        self.reconcile()

    def node_key_replaced(self) -> None:
        self.reconcile()

    def key_refused(self, why: str) -> None:
        """The server does not take our key: sign in anew if someone just asked us to come up."""
        self._key_good = False
        self._in_trouble("login", why)
        if self._if_refused is not None:
            self.begin_login(self._if_refused)
        self.reconcile()

    def map_message(self, message: MapResponse) -> None:
        """Take one message whole or not at all; the first of a stream stands for itself."""
        if message.control_time is not None:
            self._time.tell(message.control_time)
        if message.keep_alive:
            return
        netmap = apply(None if self._fresh_stream else self.netmap, message, self.now())
        self.netmap, self._fresh_stream = netmap, False
        self._learn_exit_node(netmap)
        self._describe_account(netmap)
        if not is_expired(netmap, self.now()):
            self._key_good, self._if_refused = True, None
            self._well("login")
        self._plan_expiry(netmap)
        self._save.set()
        self.reconcile()

    def _learn_exit_node(self, netmap: NetMap) -> None:
        """An exit node that was named by its address is known by its ID from now on."""
        prefs = resolved(netmap, self.store.prefs)
        if prefs != self.store.prefs:
            try:
                self.set_prefs(prefs)
            except ClientError as error:  # it is found by its address next time, too
                logger.info("%s", error)

    def question(self, session: Session, question: PingRequest) -> None:
        if self.answer is not None:
            self._spawn(self.answer(session, question))

    def trouble(self, error: ControlError) -> None:
        self._in_trouble("control", f"no control connection: {error}")
        self.announce()

    def _plan_expiry(self, netmap: NetMap) -> None:
        """Look at everything again when the next key runs out."""
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        left = next_expiry(netmap, self.now())
        if left is not None:
            seconds = min(left.total_seconds() + 1, MAX_TIMER_SECONDS)
            self._expiry_timer = asyncio.get_running_loop().call_later(seconds, self._expiry_due)

    def _expiry_due(self) -> None:
        self.reconcile()
        if self.netmap is not None:
            self._plan_expiry(self.netmap)

    async def _save_netmaps(self) -> None:
        while True:
            await self._save.wait()
            self._save.clear()
            async with self._saving:  # not while the account changes
                netmap = self.netmap
                await self._save_netmap(netmap)
            peers = len(netmap.peers) if netmap is not None else 0
            await asyncio.sleep(SAVE_PAUSE_SECONDS + peers / SAVED_PEERS_PER_SECOND)
            if peers >= MANY_PEERS:  # by now the tunnel has followed, too
                give_back()

    async def _save_netmap(self, netmap: NetMap | None) -> None:
        if netmap is not None:
            try:
                await asyncio.to_thread(self.store.save_netmap, netmap)
                self._well("save")
            except ClientError as error:
                self._in_trouble("save", str(error))

    def save_soon(self) -> None:
        """The node key has changed: the netmap on disk is bound to the old one."""
        self._save.set()

    # --- the tunnel --------------------------------------------------------------------------------------

    def woke(self) -> None:
        """The host slept: timers are late by that, and connections may have died without a word."""
        self._expiry_due()
        self.link_changed()

    async def _rotate(self) -> None:
        if self.rotate is not None:
            await self.rotate()

    def link_changed(self) -> None:
        """The host's network changed."""
        if self.tunnel.is_up:
            self.tunnel.link_changed()
            self._may_be_dead = True
            self._tunnel_changed.set()
        if self.control is not None:
            self.control.hurry()

    def _on_endpoints(self, endpoints: tuple[Endpoint, ...]) -> None:
        if endpoints != self.endpoints:
            self.endpoints = endpoints
            self.report_changed.set()

    def _on_net_info(self, net_info: NetInfo) -> None:
        if net_info != self.net_info:
            self.net_info = net_info
            self.report_changed.set()

    async def _drive_tunnel(self) -> None:
        """One change after another, always towards the newest netmap; what fails is tried again."""
        backoff = Backoff()
        while True:
            self._tunnel_changed.clear()
            if await self._try_to_follow():
                backoff.reset()
                self._well("tunnel")
                if not self._tunnel_changed.is_set():
                    self._settled.set()
                await self._tunnel_changed.wait()
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.next()):
                        await self._tunnel_changed.wait()

    async def _try_to_follow(self) -> bool:
        try:
            await self._follow_netmap()
            await self._open_to_peers()
            await self._follow_dns()
        except ClientError as error:
            self._in_trouble("tunnel", f"no tunnel: {error}")
            self.announce(error)
            return False
        except Exception:  # the daemon outlives its bugs: logged, and tried again
            logger.exception("the tunnel failed")
            self._troubles["tunnel"] = "no tunnel: trenzad failed, see its log"
            self.announce()
            return False
        return True

    async def _follow_netmap(self) -> None:
        wanted, netmap, node = duties(self.facts).tunnel, self.in_force(), self.store.identity.node
        if not wanted or netmap is None or node is None:
            await self._take_down()
            return await self.tunnel.guard(self._guarding())
        await self._bury_if_dead()
        prefs = self.store.prefs
        netmap = self._reduction.of(netmap, prefs)
        if self.tunnel.is_up:
            return await self.tunnel.apply(netmap, node, prefs=prefs)
        keys = Keys(node=node, disco=self._disco)
        ports = Ports(asked=self._asked_port, kept=self.store.identity.listen_port)
        await self.tunnel.up(netmap, keys, ports=ports, prefs=prefs)
        self._may_be_left = False
        self.store.set_identity(listen_port=self.tunnel.listen_port)
        if self.tunnel.sock is not None:
            self.tunnel.sock.set_connected(self.is_connected)
            self.tunnel.sock.set_control_url(self.control_url)
        self.announce()
        return None

    async def _open_to_peers(self) -> None:
        """The PeerAPI listens where the tunnel is; the filter lets peers in there, the server tells them."""
        if self.peerapi is None:
            return
        netmap = self.in_force() if self.tunnel.is_up and not self.store.prefs.shields_up else None
        await self.peerapi.serve_on(tailnet_addresses(netmap.node.addresses) if netmap else ())
        await self.tunnel.open_doors(self.peerapi.doors)
        services = self.peerapi.services()
        if services != self._services:
            self._services = services
            self.report_changed.set()

    async def _follow_dns(self) -> None:
        netmap = self.in_force()
        if self.dns is not None and self.tunnel.is_up and netmap is not None:
            await self.dns.follow(wanted_dns(netmap, self.store.prefs, self.control_url))

    async def _stop_dns(self) -> None:
        """Before the tunnel goes: programs must not ask where nobody is."""
        try:
            if self.dns is not None:
                await self.dns.stop()
            self._well("dns")
        except ClientError as error:
            self._in_trouble("dns", str(error))

    def in_force(self) -> NetMap | None:
        """The newest netmap as it is by now; the same object while nothing changes."""
        if self.netmap is None:
            return None
        seen = without_expired(self.netmap, self.now())
        if self._shown is None or seen != self._shown:
            self._shown = seen
        return self._shown

    def _guarding(self) -> Prefs | None:
        return guarding(self.store.prefs, has_key=self.store.identity.node is not None)

    async def _bury_if_dead(self) -> None:
        """A tunnel whose WireGuard was killed or removed is taken down, to be made anew."""
        if self._may_be_dead and self.tunnel.is_up and not await self.tunnel.is_alive():
            logger.warning("the tunnel's interface is gone; making it anew")
            if self.peerapi is not None:  # its listeners may have been in a network that is gone, too
                await self.peerapi.serve_on(())
            await self.tunnel.down(keep=False, guarding=self._guarding())
        self._may_be_dead = False

    async def _take_down(self) -> None:
        """Also what a killed daemon left, unless that may be taken over once the server has spoken."""
        if self.tunnel.is_up or (self._may_be_left and self.state is not State.STARTING):
            await self._stop_dns()
            await self.tunnel.down(keep=False, guarding=self._guarding())
            self._may_be_left = False
            self.endpoints, self.net_info = (), None
            self.announce()
