"""Holds the control session: connects, registers, follows the map stream, reports; and again, for ever.

What it learns goes to its :class:`Owner` at once; it decides nothing about the node but whether to try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from client.control.carriers import CarrierKind, HandshakeRefused
from client.control.dial import Backoff, Dialer, KeyAnswer, Server, fetch_key
from client.control.link import Link, open_link
from client.control.session import Session, login
from client.errors import ControlError, LoginError, UnknownNode
from client.oauthkey import AuthKey, OAuthKey, trade
from client.prefs import Prefs
from client.store import Store
from wire.control import CAPABILITY_VERSION, Hostinfo, MapRequest, PingRequest, RegisterRequest
from wire.errors import WireError
from wire.keys import MachinePublic, NodePrivate, NodePublic
from wire.netmap import MapResponse

logger = logging.getLogger("trenzad.control")

MAX_CLOCK_SKEW = timedelta(minutes=10)
REPORT_PAUSE_SECONDS = 0.1  # changes that come together make one report
UNKNOWN_NODE = "the server does not know this device (any more): sign in again with trenza up"
KEY_EXPIRED = "this device's key has expired: sign in again with trenza up"
LOGOUT_TIME = datetime.fromtimestamp(123, UTC)  # an expiry in the past: how a logout is told


@dataclass(kw_only=True)
class Login:
    """A wish to register anew at ``url``. ``prefs`` hold once it succeeds.

    ``patient``: an unreachable server is tried again; else its trouble ends the login.
    """

    url: str
    prefs: Prefs
    auth_key: AuthKey = field(default="", repr=False)
    patient: bool = False
    auth_url: str = field(default="", repr=False)


class Owner(Protocol):
    """The node whose control session this is."""

    report_changed: asyncio.Event

    def hostinfo(self) -> Hostinfo: ...

    def report(self) -> MapRequest:
        """What a lite update says now."""
        ...

    def connected(self, connected: bool) -> None: ...

    def show_auth_url(self, url: str) -> None: ...

    def logged_in(self, login: Login, *, moved: bool) -> None:
        """The identity on disk has the new node key; ``moved`` = it belongs to another server than before."""
        ...

    def node_key_replaced(self) -> None:
        """A rotation that an earlier run began is complete."""
        ...

    def key_refused(self, why: str) -> None: ...

    def map_message(self, message: MapResponse) -> None: ...

    def question(self, session: Session, question: PingRequest) -> None: ...

    def trouble(self, error: ControlError) -> None: ...

    def now(self) -> datetime: ...


@dataclass
class ControlLoop:
    """One server's session, for as long as :meth:`run` runs. ``session`` is there while connected."""

    owner: Owner
    store: Store
    dialer: Dialer
    kind: CarrierKind
    url: str
    login: Login | None = None
    session: Session | None = None
    backoff: Backoff = field(default_factory=Backoff)
    _key: MachinePublic | None = None
    _registered: bool = False
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _begun: asyncio.Event = field(default_factory=asyncio.Event)  # a map stream, by its first message

    def __post_init__(self) -> None:
        identity = self.store.identity
        if self.login is None and identity.control_url == self.url:
            self._key = identity.control_key  # a login asks anew: it wants the server's clock as well

    async def run(self) -> None:
        """Never returns; raises what ends a login: :class:`LoginError`, or why the server is not reached."""
        while True:
            asked = 0.0
            try:
                async with AsyncExitStack() as stack:
                    await self._serve(await self._open(stack))
            except ControlError as error:
                self._judge(error)
                asked = error.retry_after
            await self._pause(asked)

    def hurry(self) -> None:
        """The network changed, or the host slept: try again now, or see soon whether the server is there."""
        self._hurry.set()
        if self.session is not None:
            self.session.link.probe()

    async def hear_anew(self) -> None:
        """Return once the server has told what it had to tell by now: its answer comes after all that."""
        self._begun.clear()
        if self.session is not None:
            with contextlib.suppress(ControlError):  # the connection is dead; the next begins with everything
                return await self.session.update(self.owner.report())
        await self._begun.wait()

    def _judge(self, error: ControlError) -> None:
        """Whether an error ends a login, or what the owner is told before the next try."""
        if self.login is not None:
            waits = self.login.patient or self.login.auth_url
            if isinstance(error, LoginError) or not waits:
                raise error
        elif isinstance(error, LoginError | UnknownNode):
            self._registered = False
            self.owner.key_refused(UNKNOWN_NODE if isinstance(error, UnknownNode) else str(error))
        self.owner.trouble(error)

    async def _pause(self, asked: float) -> None:
        """Wait before the next try; ``asked`` seconds at least, whatever the network does."""
        if asked:
            await asyncio.sleep(self.backoff.next(asked))
            return
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.backoff.next()):
                await self._hurry.wait()

    # --- connecting --------------------------------------------------------------------------------------

    async def _open(self, stack: AsyncExitStack) -> Link:
        """A link under the key known for this server; a server that refuses it is asked for its key again."""
        server = Server.from_url(self.url)
        machine = self.store.identity.machine
        if self._key is None:
            self._key = await self._ask_key(server)
        try:
            return await stack.enter_async_context(
                open_link(self.kind, self.dialer, server, machine, self._key)
            )
        except HandshakeRefused:
            fresh = await self._ask_key(server)
            if fresh == self._key:
                raise
            logger.warning("control: %s has a new key", server.url)
            self._key = fresh
            return await stack.enter_async_context(open_link(self.kind, self.dialer, server, machine, fresh))

    async def _ask_key(self, server: Server) -> MachinePublic:
        answer = await fetch_key(self.dialer, server)
        if self.login is not None:
            check_clock(answer, self.owner.now())
        return answer.key

    async def _serve(self, link: Link) -> None:
        session = Session(link)
        await self._join(session)
        self.session = session
        self._registered = True
        self.store.set_identity(control_key=self._key)
        self.owner.connected(True)
        try:
            await self._follow(session)
        finally:
            self.session = None
            self.owner.connected(False)

    # --- registering -------------------------------------------------------------------------------------

    async def _join(self, session: Session) -> None:
        if self.login is not None:
            await self._log_in(session, self.login)
            return
        if self.store.identity.rotating:
            await self._finish_rotation(session)
        if not self._registered:
            await self._restart(session)

    async def _log_in(self, session: Session, wish: Login) -> None:
        identity = self.store.identity
        pending = (
            identity.pending if identity.pending and not identity.rotating else self.store.new_node_key()
        )
        moved = identity.control_url != self.url
        request = self._request(
            pending.public(),
            old=identity.node if not moved else None,
            auth_key=await self._auth_key(wish),
            followup=wish.auth_url,
        )

        async def show(url: str) -> None:
            wish.auth_url = url
            self.owner.show_auth_url(url)

        await login(session, request, new_key=lambda: self.store.new_node_key().public(), on_url=show)
        self.store.adopt_pending(control_url=self.url, control_key=self._key)
        self.login = None
        self.owner.logged_in(wish, moved=moved)

    async def _auth_key(self, wish: Login) -> str:
        """The key to register with; an OAuth client's secret is traded for one, once for all tries."""
        if isinstance(wish.auth_key, OAuthKey):
            wish.auth_key = await trade(
                wish.auth_key, self.dialer, server=self.url, tags=wish.prefs.advertise_tags
            )
        return wish.auth_key

    async def _restart(self, session: Session) -> None:
        """Say who we are; an expired key still follows the map, for an administrator may extend it."""
        response = await session.register(self._request(self._node_key()))
        if response.node_key_expired:
            self.owner.key_refused(KEY_EXPIRED)
        elif response.auth_url:
            raise UnknownNode(UNKNOWN_NODE)

    async def _finish_rotation(self, session: Session) -> None:
        """An earlier connection asked for a rotation and did not hear the answer: ask again, or let it be."""
        pending = self.store.identity.pending
        if pending is None:
            return
        try:
            if await rotate(session, self._request, pending, self.store):
                self.owner.node_key_replaced()
        except LoginError as error:  # the old key may be as good as before
            logger.warning("control: the server refuses to finish a rotation: %s", error)

    def _request(
        self,
        key: NodePublic,
        *,
        old: NodePrivate | None = None,
        auth_key: str = "",
        followup: str = "",
        rotates: bool = False,
    ) -> RegisterRequest:
        return RegisterRequest(
            version=CAPABILITY_VERSION,
            node_key=key,
            old_node_key=old.public() if old else NodePublic.zero(),
            auth_key=auth_key,
            followup=followup,
            hostinfo=self.owner.hostinfo(),
            trenza_rotate=rotates,
        )

    def _node_key(self) -> NodePublic:
        node = self.store.identity.node
        if node is None:
            raise LoginError("this device has not signed in yet: trenza up")
        return node.public()

    async def rotate(self) -> None:
        """A new node key in place of the old one, on disk when this returns; raises :class:`ControlError`."""
        if self.session is None:
            raise ControlError("the node key can only be rotated while the control server is reached")
        identity = self.store.identity
        asked = identity.pending if identity.rotating else None  # the server may have taken it already
        pending = asked or self.store.new_node_key(rotating=True)
        if not await rotate(self.session, self._request, pending, self.store):
            raise LoginError(
                "the server wants a person to sign in before it takes a new key: trenza up --force-reauth"
            )

    # --- following ---------------------------------------------------------------------------------------

    async def _follow(self, session: Session) -> None:
        reporter, begun = asyncio.create_task(self._report(session)), False
        try:
            request = self.owner.report()
            poll = MapRequest(
                version=CAPABILITY_VERSION,
                node_key=request.node_key,
                disco_key=request.disco_key,
                hostinfo=request.hostinfo,
                compress="zstd",
                keep_alive=True,
                stream=True,
            )
            async with aclosing(session.poll(poll)) as messages:
                async for message in messages:
                    self._take(session, message)
                    if not message.keep_alive and not begun:
                        begun = True
                        self._begun.set()
            raise ControlError("the server ended the map stream")
        finally:
            reporter.cancel()
            await asyncio.gather(reporter, return_exceptions=True)

    def _take(self, session: Session, message: MapResponse) -> None:
        try:
            self.owner.map_message(message)
        except WireError as error:
            raise ControlError(f"the server's network map makes no sense: {error}") from error
        self.backoff.reset()
        if message.ping_request is not None:
            self.owner.question(session, message.ping_request)

    async def _report(self, session: Session) -> None:
        """Tell the server what this node is, now and whenever it changes."""
        backoff = Backoff()
        while True:
            self.owner.report_changed.clear()
            try:
                await session.update(self.owner.report())
            except ControlError as error:
                logger.info("control: %s", error)
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            await self.owner.report_changed.wait()
            await asyncio.sleep(REPORT_PAUSE_SECONDS)


class MakeRequest(Protocol):
    def __call__(self, key: NodePublic, *, old: NodePrivate | None, rotates: bool) -> RegisterRequest: ...


async def rotate(session: Session, make: MakeRequest, pending: NodePrivate, store: Store) -> bool:
    """Ask the server to take ``pending`` in place of the node key; ``False`` when it wants a login instead.

    The pending key is dropped only when the server has said no: a lost answer leaves it to be asked again.
    """
    try:
        response = await session.register(make(pending.public(), old=store.identity.node, rotates=True))
    except LoginError:
        store.set_identity(pending=None, rotating=False)
        raise
    if response.auth_url or response.node_key_expired:
        store.set_identity(pending=None, rotating=False)
        return False
    store.adopt_pending()
    return True


async def tell_logout(store: Store, dialer: Dialer, kind: CarrierKind, hostinfo: Hostinfo) -> None:
    """End this node's key at its server; raises :class:`ControlError`."""
    identity = store.identity
    if identity.node is None or not identity.control_url:
        return
    server = Server.from_url(identity.control_url)
    key = identity.control_key or (await fetch_key(dialer, server)).key
    request = RegisterRequest(
        version=CAPABILITY_VERSION, node_key=identity.node.public(), expiry=LOGOUT_TIME, hostinfo=hostinfo
    )
    async with open_link(kind, dialer, server, identity.machine, key) as link:
        await Session(link).register(request)


def check_clock(answer: KeyAnswer, now: datetime) -> None:
    """A login with a wrong clock is refused: peers would later reject handshakes that lie in their past."""
    if answer.date is None or abs(now - answer.date) <= MAX_CLOCK_SKEW:
        return
    skew = now - answer.date
    minutes = round(abs(skew.total_seconds()) / 60)
    side = "ahead of" if skew > timedelta() else "behind"
    raise ControlError(
        f"this machine's clock is {minutes // 60} h {minutes % 60} min {side} the server's: "
        "set it (timedatectl set-ntp true), then try again"
    )
