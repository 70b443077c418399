"""The node: its facts, and the workers that carry out what follows from them.

Facts change by a map message, a login or a command (:mod:`client.commands`); :func:`client.state.duties` says
what follows: the control loop runs or not, the follower (:mod:`client.follower`) has the tunnel up or down.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any

from client.control.carriers import CarrierKind
from client.control.dial import Dialer
from client.control.loop import MAX_CLOCK_SKEW, ControlLoop, Login
from client.control.session import Session
from client.dns.service import Dns
from client.errors import ClientError, ControlError, LoginError
from client.flows.reporter import FlowReporter
from client.follower import Follower, MakeTunnel
from client.hostinfo import own_hostinfo
from client.netmaps import Netmaps
from client.notices import Notice, Watchers
from client.oauthkey import AuthKey
from client.pathreports import PathReporter
from client.peerapi.api import PeerAPI
from client.prefs import Prefs
from client.renewal import Renewal
from client.routing import resolved
from client.servertime import ServerTime
from client.sleep import SleepWatch
from client.state import Facts, State, duties, state_of
from client.store import Store
from client.troubles import Troubles
from client.waking import Waking
from client.wayout import BLOCKED, routing_health
from wire.control import CAPABILITY_VERSION, Hostinfo, MapRequest, PingRequest
from wire.keys import DiscoPrivate, NodePublic
from wire.netmap import MapResponse, NetMap

logger = logging.getLogger("trenzad")

BUG_PAUSE_SECONDS = 10.0
ENTROPY_BYTES = 32
Answer = Callable[[Session, PingRequest], Coroutine[Any, Any, None]]


def new_disco_key() -> DiscoPrivate:
    return DiscoPrivate.generate(os.urandom(ENTROPY_BYTES))


class Backend:
    """``default_url``, ``auth_key`` and ``tags`` are trenzad's environment."""

    def __init__(
        self,
        *,
        store: Store,
        make_tunnel: MakeTunnel,
        kind: CarrierKind = CarrierKind.WEBSOCKET,
        dialer: Dialer | None = None,
        default_url: str = "",
        auth_key: AuthKey = "",
        tags: Sequence[str] = (),
        port: int = 0,
        time: ServerTime | None = None,
    ) -> None:
        self.store = store
        self.kind = kind
        self.dialer = dialer or Dialer()
        self.default_url = default_url
        self.watchers = Watchers()
        self.login: Login | None = None
        self.control: ControlLoop | None = None
        self.is_connected = False
        self.disco_key = new_disco_key()  # of this run
        self.report_changed = asyncio.Event()
        self.peerapi: PeerAPI | None = None
        self.dns: Dns | None = None
        self.answer: Answer | None = None
        self.rotate: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._auth_key, self._tags = auth_key, tuple(tags)
        self._time = time or ServerTime()
        self._troubles = Troubles()
        self.netmaps = Netmaps(store, now=self.now, troubles=self._troubles, on_expiry=self.reconcile)
        self.follower = Follower(
            self,
            store=store,
            netmaps=self.netmaps,
            troubles=self._troubles,
            make_tunnel=make_tunnel,
            port=port,
            on_news=self.report_changed.set,
        )
        self.tunnel = self.follower.tunnel
        self.waking = Waking(self.tunnel, is_connected=lambda: self.is_connected, heard=self._hear_anew)
        self._started = False
        self._key_good = True
        self._if_refused: Login | None = None
        self._control_task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- running -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until cancelled. The tunnel is still as it was then: see :meth:`close`."""
        self.netmaps.load()
        self._begin_login_from_environment()
        await self.follower.stop_dns()  # a killed daemon's: nobody answers, and the server has to be found
        self._started = True
        self.reconcile()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.follower.run())
                group.create_task(self.netmaps.run())
                group.create_task(SleepWatch(on_wake=self.woke).run())
                group.create_task(
                    Renewal(netmap=lambda: self.netmap, now=self.now, rotate=self._rotate).run()
                )
                for reporter in self._reporters():
                    group.create_task(reporter.run())
        finally:
            self.waking.end()
            self._stop_control()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self.netmaps.end_timer()

    async def change_account(self, change: Callable[[], None]) -> None:
        """Let go of the account in use, and go on with the one that ``change`` puts into the store.

        Raises ``ClientError``, what ``change`` raises (the account in use goes on then), ``TimeoutError``.
        """
        self.cancel_login()
        self._started = False
        try:
            await self.settle()
            await self.netmaps.leave_account(change)
            self._forget_account()
            self.netmaps.load()
        finally:
            self._started = True
            self.reconcile()

    def _forget_account(self) -> None:
        self.login = self._if_refused = None
        self._key_good = True
        self._troubles.clear()
        self.disco_key = new_disco_key()

    async def close(self) -> None:
        """After :meth:`run`: take down the tunnel, also a killed daemon's; keep the last netmap."""
        await self.follower.close()
        self.netmaps.save()

    def _reporters(self) -> tuple[PathReporter, FlowReporter]:
        """What tells the server more than the control protocol has words for."""

        def session() -> Session | None:
            return self.control.session if self.control else None

        def key() -> NodePublic | None:
            node = self.store.identity.node
            return node.public() if node is not None else None

        return (
            PathReporter(live=self.tunnel.live_paths, session=session, key=key),
            FlowReporter(
                tunnel=self.tunnel,
                server=lambda: self.store.identity.control_url,
                session=session,
                key=key,
                now=self.now,
            ),
        )

    def _begin_login_from_environment(self) -> None:
        """TRENZA_AUTH_KEY joins a node that has no key yet; the server may come up later than we do.

        TRENZA_ADVERTISE_TAGS counts with it.
        """
        prefs = self.store.prefs
        url = prefs.control_url or self.default_url
        if self._auth_key and url and self.store.identity.node is None and not prefs.logged_out:
            changes = {"ControlURL": url, "WantRunning": True}
            wanted = prefs.edited(changes | ({"AdvertiseTags": self._tags} if self._tags else {}))
            self.login = Login(url=url, prefs=wanted, auth_key=self._auth_key, patient=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- state -------------------------------------------------------------------------------------------

    @property
    def netmap(self) -> NetMap | None:
        """The newest one."""
        return self.netmaps.newest

    def in_force(self) -> NetMap | None:
        """The newest one as it is by now."""
        return self.netmaps.in_force()

    @property
    def facts(self) -> Facts:
        netmap = self.netmap
        return Facts(
            started=self._started,
            has_key=self.store.identity.node is not None,
            want_running=self.store.prefs.want_running,
            key_good=self._key_good and not self.netmaps.is_own_key_expired,
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
        own = self._troubles.texts()
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
        return [BLOCKED] if self.follower.guarding else []

    def reconcile(self) -> None:
        """Have the control loop run or not, wake the follower, tell who watches."""
        if duties(self.facts).control:
            if self._control_task is None:
                self._start_control()
        else:
            self._stop_control()
        self.follower.wake()
        self.announce()

    async def settle(self) -> None:
        """Reconcile, and wait until the tunnel is as decided; raises ``TimeoutError``."""
        self.reconcile()
        await self.follower.settle()

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

    # --- signing in, and preferences ---------------------------------------------------------------------

    def begin_login(self, login: Login) -> None:
        """Register anew as ``login`` says; what was before it holds until it succeeds."""
        self._troubles.over("login")
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
        self.netmaps.forget()
        self.store.set_identity(node=None, pending=None, rotating=False)
        self.store.forget_netmap()
        self._key_good = True
        self._troubles.over("login")

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
            self._troubles.over("control")

    async def _run_control(self, loop: ControlLoop) -> None:
        try:
            await loop.run()
        except ControlError as error:
            self._control_ended(error)
        except ClientError as error:  # a full disk, say: nothing that the server has to do with
            self._troubles.say("control", f"no control connection: {error}")
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
            self._troubles.keep("login", f"sign-in refused: {error}")
        self.reconcile()
        self.announce(error)

    def hostinfo(self) -> Hostinfo:
        prefs = self.login.prefs if self.login else self.store.prefs
        found = self.follower
        return own_hostinfo(prefs, found.net_info, found.services, userspace=self.tunnel.is_userspace)

    def report(self) -> MapRequest:
        node, endpoints = self.store.identity.node, self.follower.endpoints
        return MapRequest(
            version=CAPABILITY_VERSION,
            node_key=node.public() if node else NodePublic.zero(),
            disco_key=self.disco_key.public(),
            hostinfo=self.hostinfo(),
            endpoints=tuple(str(endpoint) for endpoint in endpoints),
            endpoint_types=tuple(int(endpoint.type) for endpoint in endpoints),
        )

    def connected(self, connected: bool) -> None:
        self.is_connected = connected
        self.netmaps.begin_stream()
        if connected:
            self._troubles.over("control")
        if self.tunnel.sock is not None:
            self.tunnel.sock.set_connected(connected)
        self.announce()

    def show_auth_url(self, url: str) -> None:
        logger.info("waiting for a person to sign in; trenza status shows the address to visit")
        self.announce()

    def logged_in(self, login: Login, *, moved: bool) -> None:
        if moved:
            self.netmaps.forget()
            self.store.forget_netmap()
        self.store.set_prefs(login.prefs)
        self.login = None
        self._key_good = True
        self._troubles.over("login")
        self.reconcile()

    def node_key_replaced(self) -> None:
        self.reconcile()

    def key_refused(self, why: str) -> None:
        """The server does not take our key: sign in anew if someone just asked us to come up."""
        self._key_good = False
        self._troubles.say("login", why)
        if self._if_refused is not None:
            self.begin_login(self._if_refused)
        self.reconcile()

    def map_message(self, message: MapResponse) -> None:
        """Take one message whole or not at all; the first of a stream stands for itself."""
        if message.control_time is not None:
            self._time.tell(message.control_time)
        if message.keep_alive:
            return
        self._learn_exit_node(self.netmaps.take(message))
        if not self.netmaps.is_own_key_expired:
            self._key_good, self._if_refused = True, None
            self._troubles.over("login")
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
        self._troubles.say("control", f"no control connection: {error}")
        self.announce()

    # --- the host ----------------------------------------------------------------------------------------

    def woke(self, away: float) -> None:
        """The host slept so long: timers are late by that, connections may have died, peers be revoked."""
        self.waking.wake_up(away)
        self.netmaps.expiry_due()
        self.link_changed()

    async def _hear_anew(self) -> None:
        if self.control is not None:
            await self.control.hear_anew()
        await self.follower.settle()

    async def _rotate(self) -> None:
        if self.rotate is not None:
            await self.rotate()

    def link_changed(self) -> None:
        """The host's network changed."""
        self.follower.link_changed()
        if self.control is not None:
            self.control.hurry()
