"""``/ws/panel/TAILNET``: who may listen, and that a page hears what changed and nothing more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from channels.routing import URLRouter
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.models import Session
from django.utils import timezone

from accounts import changes
from accounts.actors import Actor
from accounts.middleware import SESSION_KEY as TAILNET_KEY
from accounts.models import Tailnet, User
from accounts.roles import Role
from accounts.services.people import suspend_member
from accounts.services.tailnets import delete_tailnet
from accounts.tenancy import memberships_of
from controlplane.consumers import panel
from controlplane.models import Relay
from nodes.services import lifecycle
from nodes.services.paths import record_paths
from nodes.services.presence import claim_presence, release_presence
from tests.accounts import factories
from tests.nodes import factories as machines
from wire.paths import PeerPath

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE = 5.0
in_thread: Callable[..., Any] = database_sync_to_async


@pytest.fixture(autouse=True)
async def _server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(panel, "WATCH_SECONDS", 0.05)
    changes.set_loop(asyncio.get_running_loop())
    yield
    changes.set_loop(None)
    await asyncio.sleep(0.1)  # the watcher ends when nobody listens


def _cookie(user: User, tailnet: Tailnet | None) -> str:
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    if tailnet is not None:
        session[TAILNET_KEY] = tailnet.pk
    session.save()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"


class Socket:
    """A WebSocket as the server sees it."""

    def __init__(self, path: str, headers: list[tuple[bytes, bytes]]) -> None:
        scope = {
            "type": "websocket",
            "path": path,
            "headers": headers,
            "query_string": b"",
            "subprotocols": [],
        }
        self._running = ApplicationCommunicator(URLRouter(panel.PANEL_SOCKETS), scope)

    async def connect(self) -> bool:
        """Whether the handshake was accepted."""
        await self._running.send_input({"type": "websocket.connect"})
        answer = await self._running.receive_output(PATIENCE)
        return bool(answer["type"] == "websocket.accept")

    async def receive(self) -> dict[str, Any]:
        return dict(await self._running.receive_output(PATIENCE))

    async def receive_json(self) -> dict[str, Any]:
        return dict(json.loads((await self.receive())["text"]))

    async def hears_nothing(self, seconds: float) -> bool:
        return bool(await self._running.receive_nothing(seconds))

    async def disconnect(self) -> None:
        await self._running.send_input({"type": "websocket.disconnect", "code": 1000})
        await self._running.wait(PATIENCE)


async def socket(
    path: str, user: User | None = None, tailnet: Tailnet | None = None, origin: str = "http://testserver"
) -> Socket:
    headers = [(b"host", b"testserver")]
    if origin:
        headers.append((b"origin", origin.encode()))
    if user is not None:
        headers.append((b"cookie", (await in_thread(_cookie)(user, tailnet)).encode()))
    return Socket(path, headers)


async def listen(user: User, tailnet: Tailnet, **options: Any) -> Socket:
    """An open page that has had its greeting."""
    opened = await socket(f"/ws/panel/{tailnet.pk}", user, tailnet, **options)
    assert await opened.connect()
    hello = await opened.receive_json()
    assert set(hello) == {"type", "version"}
    assert hello["type"] == "hello"
    return opened


async def heard(opened: Socket, kind: str) -> dict[str, Any]:
    """The next message of a kind; every one of them says type, id and version, and nothing else."""
    async with asyncio.timeout(PATIENCE):
        while True:
            message: dict[str, Any] = await opened.receive_json()
            assert set(message) == {"type", "id", "version"}
            if message["type"] == kind:
                return message


async def closing(opened: Socket) -> int:
    """The code that the server closes an accepted socket with."""
    assert await opened.connect()
    message = await opened.receive()
    assert message["type"] == "websocket.close"
    return int(message["code"])


@pytest.fixture
async def place() -> tuple[Tailnet, User]:
    made: tuple[Tailnet, User] = await in_thread(factories.tailnet)()
    return made


# --- who may listen --------------------------------------------------------------------------------------


async def test_somebody_signed_out_is_sent_away(place: tuple[Tailnet, User]) -> None:
    opened = await socket(f"/ws/panel/{place[0].pk}")
    assert await closing(opened) == panel.SIGNED_OUT


async def test_a_page_of_another_tailnet_is_told(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    other, _ = await in_thread(factories.tailnet)()
    for wanted in (other.pk, 999999):
        opened = await socket(f"/ws/panel/{wanted}", owner, tailnet)
        assert await closing(opened) == panel.OTHER_TAILNET


@pytest.mark.parametrize("origin", ["", "http://evil.example", "null", "http://testserver.evil.example"])
async def test_no_other_site_may_listen(place: tuple[Tailnet, User], origin: str) -> None:
    tailnet, owner = place
    opened = await socket(f"/ws/panel/{tailnet.pk}", owner, tailnet, origin=origin)
    assert not await opened.connect()


async def test_the_public_address_may_listen_behind_a_proxy(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    opened = await listen(owner, tailnet, origin=settings.BASE_URL)
    await opened.disconnect()


@pytest.mark.parametrize("path", ["/ws/panel/x", "/ws/other", "/anything"])
async def test_other_addresses_are_refused(place: tuple[Tailnet, User], path: str) -> None:
    tailnet, owner = place
    assert not await (await socket(path, owner, tailnet)).connect()


async def test_there_is_a_bound_on_open_pages(place: tuple[Tailnet, User], monkeypatch: Any) -> None:
    tailnet, owner = place
    monkeypatch.setattr(panel, "MAX_SOCKETS", 1)
    first = await listen(owner, tailnet)
    opened = await socket(f"/ws/panel/{tailnet.pk}", owner, tailnet)
    assert await closing(opened) == panel.TOO_MANY
    await first.disconnect()


# --- what a page hears -----------------------------------------------------------------------------------


async def test_a_new_device_and_its_approval_are_told(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    opened = await listen(owner, tailnet)
    node = await in_thread(machines.node)(tailnet, owner)
    came = await heard(opened, "node")
    assert came["id"] == node.pk
    await in_thread(lifecycle.approve_node)(node=node, by=Actor.person(owner))
    approved = await heard(opened, "node")
    assert (approved["id"], approved["version"] > came["version"]) == (node.pk, True)
    await opened.disconnect()


async def test_coming_online_and_going_are_told(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = await in_thread(machines.node)(tailnet, owner, preapproved=True)
    opened = await listen(owner, tailnet)
    await asyncio.sleep(0.2)  # the watcher has seen who is online at first: nobody
    epoch = await in_thread(claim_presence)(tailnet=tailnet, node_id=node.pk, worker="w")
    assert (await heard(opened, "node"))["id"] == node.pk
    await in_thread(release_presence)(tailnet=tailnet, node_id=node.pk, epoch=epoch)
    assert (await heard(opened, "node"))["id"] == node.pk
    await opened.disconnect()


async def test_a_change_by_another_process_is_found(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    opened = await listen(owner, tailnet)
    changes.set_loop(None)  # as in manage.py: nothing is published from here
    await in_thread(machines.node)(tailnet, owner)
    found = await heard(opened, "tailnet")
    assert found["id"] == tailnet.pk
    await opened.disconnect()


async def test_relays_reports_are_told(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place

    def report() -> None:
        Relay.objects.update_or_create(
            node_name="900a", defaults={"region_id": 900, "last_seen": timezone.now(), "host_name": "x"}
        )

    await sync_to_async(report)()
    opened = await listen(owner, tailnet)
    await asyncio.sleep(0.2)
    await sync_to_async(report)()
    assert (await heard(opened, "relay"))["id"] == 0
    await opened.disconnect()


async def test_a_member_learns_that_something_changed_but_not_what(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    member = await in_thread(factories.member)(tailnet, Role.MEMBER)
    opened = await listen(member.user, tailnet)
    node = await in_thread(machines.node)(tailnet, owner)
    message = await opened.receive_json()
    assert (message["type"], message["id"]) == ("tailnet", tailnet.pk)
    assert node.pk != tailnet.pk or message["type"] != "node"
    await opened.disconnect()


async def test_who_sees_everything_is_told_of_paths_and_nobody_else(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    member = await in_thread(factories.member)(tailnet, role=Role.MEMBER)
    here, there = [
        await in_thread(machines.node)(tailnet, owner, hostname=name, preapproved=True)
        for name in ("here", "there")
    ]
    all_of_it = await listen(owner, tailnet)
    own = await listen(member.user, tailnet)
    path = PeerPath(node_id=there.pk, endpoint="192.0.2.7:1")
    await in_thread(record_paths)(tailnet=tailnet.pk, node_id=here.pk, paths=[path])
    assert (await heard(all_of_it, "path"))["id"] == here.pk
    assert await own.hears_nothing(0.2)
    for opened in (all_of_it, own):
        await opened.disconnect()


async def test_nothing_of_another_tailnet_is_heard(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    other, stranger = await in_thread(factories.tailnet)()
    opened = await listen(owner, tailnet)
    listening = await listen(stranger, other)
    await in_thread(machines.node)(other, stranger)
    await heard(listening, "node")
    assert await opened.hears_nothing(0.3)
    await opened.disconnect()
    await listening.disconnect()


async def test_somebody_who_signed_out_elsewhere_is_told_no_more(
    place: tuple[Tailnet, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    tailnet, owner = place
    monkeypatch.setattr(panel, "PING_SECONDS", 0.1)
    opened = await listen(owner, tailnet)
    assert (await opened.receive_json())["type"] == "ping"
    await in_thread(Session.objects.all().delete)()
    async with asyncio.timeout(PATIENCE):
        while (message := await opened.receive())["type"] != "websocket.close":
            pass
    assert message["code"] == panel.SIGNED_OUT
    assert panel.watcher().rooms == {}
    await opened.disconnect()


async def code_of_its_end(opened: Socket) -> int:
    """Wait until the server ends a socket."""
    async with asyncio.timeout(PATIENCE):
        while (message := await opened.receive())["type"] != "websocket.close":
            pass
    return int(message["code"])


@pytest.mark.parametrize("lost", [False, True], ids=["told", "by another process"])
async def test_somebody_suspended_is_cut_off(place: tuple[Tailnet, User], lost: bool) -> None:
    tailnet, owner = place
    member = await in_thread(factories.member)(tailnet, Role.ADMIN)
    opened, other = await listen(member.user, tailnet), await listen(owner, tailnet)
    if lost:
        changes.set_loop(None)
    await in_thread(suspend_member)(membership=member, by=Actor.person(owner))
    assert await code_of_its_end(opened) == panel.SIGNED_OUT
    await heard(other, "tailnet" if lost else "membership")
    await other.disconnect()


@pytest.mark.parametrize("lost", [False, True], ids=["told", "by another process"])
async def test_pages_of_a_tailnet_that_was_deleted_end(place: tuple[Tailnet, User], lost: bool) -> None:
    tailnet, owner = place
    opened = await listen(owner, tailnet)
    if lost:
        changes.set_loop(None)
    await in_thread(delete_tailnet)(tailnet=tailnet, by=Actor.person(owner))
    assert await code_of_its_end(opened) == panel.SIGNED_OUT


async def test_an_open_page_says_when_its_reader_was_here(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    before = timezone.now()
    opened = await listen(owner, tailnet)
    (membership,) = await in_thread(memberships_of)(owner.pk)
    assert membership.last_seen >= before
    await opened.disconnect()
