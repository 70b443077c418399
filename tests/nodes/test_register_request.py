"""``/machine/register`` from the wire's message to the wire's answer, with a follow-up that waits."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.core.cache import cache

from accounts import changes
from accounts.errors import LimitExceeded
from accounts.models import Tailnet, User
from controlplane.control import register as handler
from controlplane.control import waiting as waits
from controlplane.control.register import REGISTER_PATH, TAGGED_LOGIN, handle_register, register
from controlplane.env import environment
from nodes.services.logins import MAX_NEW_PER_MINUTE, confirm_login, find_login, reject_login
from tests.accounts import factories as people
from tests.nodes import factories
from wire.codec import decode_json, encode_json
from wire.control import Hostinfo, RegisterRequest, RegisterResponse
from wire.errors import WireError
from wire.keys import MachinePublic, NodePublic
from wire.session import RequestReceived

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE = 5.0


@pytest.fixture(autouse=True)
async def _server() -> AsyncIterator[None]:
    cache.clear()
    changes.set_loop(asyncio.get_running_loop())
    yield
    changes.set_loop(None)


@pytest.fixture
def peer() -> MachinePublic:
    return MachinePublic(secrets.token_bytes(32))


def message(**values: Any) -> RegisterRequest:
    given: dict[str, Any] = {
        "version": 130,
        "node_key": NodePublic(secrets.token_bytes(32)),
        "hostinfo": Hostinfo(raw={"Hostname": "box"}),
    }
    return RegisterRequest(**(given | values))


def follow_up(first: RegisterRequest, url: str) -> RegisterRequest:
    return message(node_key=first.node_key, followup=url)


def token_of(url: str) -> str:
    return url.rpartition("/")[2]


class Answer:
    """A response stream that keeps what it is given."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.headers: dict[str, str] = {}

    def finish(self, body: bytes = b"", status: int = 200, headers: Any = None) -> None:
        self.body, self.status, self.headers = body, status, dict(headers or [])


async def post(body: bytes, peer: MachinePublic, address: str = "192.0.2.1") -> Answer:
    answer: Any = Answer()
    request = RequestReceived(1, "POST", "/machine/register", {}, body)
    await handle_register(request, peer, 130, answer, address)
    return answer  # type: ignore[no-any-return]


def _home() -> tuple[Tailnet, User]:
    return people.tailnet()


async def test_an_auth_key_over_the_wire(peer: MachinePublic) -> None:
    tailnet, owner = await database_sync_to_async(_home)()
    key = await database_sync_to_async(factories.auth_key)(tailnet, owner)
    answer = await post(encode_json(message(auth_key=key).to_json()), peer)
    content = decode_json(answer.body)
    assert answer.status == 200
    assert content["Error"] == ""
    assert content["MachineAuthorized"] is True, "pending belongs in the map"
    assert content["Login"]["LoginName"] == owner.email
    assert set(content) == {"User", "Login", "NodeKeyExpired", "MachineAuthorized", "AuthURL", "Error"}


async def test_a_tagged_node_has_the_pseudo_user(peer: MachinePublic) -> None:
    tailnet, _ = await database_sync_to_async(_home)()
    key = await database_sync_to_async(factories.auth_key)(tailnet, tags=["tag:web"])
    assert (await register(message(auth_key=key), peer, "")).login_name == TAGGED_LOGIN


async def test_an_old_client_is_told_to_update(peer: MachinePublic) -> None:
    assert "too old" in (await register(message(version=112), peer, "")).error


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"Version":130,"NodeKey":"nodekey:1"}', b"\xff"])
async def test_a_broken_body_is_a_declared_error(body: bytes, peer: MachinePublic) -> None:
    with pytest.raises(WireError):
        await post(body, peer)


async def test_an_empty_object_is_answered(peer: MachinePublic) -> None:
    assert "too old" in decode_json((await post(b"{}", peer)).body)["Error"]


async def test_a_follow_up_is_answered_when_the_person_confirms(peer: MachinePublic) -> None:
    first = message()
    url = (await register(first, peer, "")).auth_url
    assert url.startswith(environment().url + REGISTER_PATH)
    waiting = asyncio.ensure_future(register(follow_up(first, url), peer, ""))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    tailnet, owner = await database_sync_to_async(_home)()
    pending = await database_sync_to_async(find_login)(token=token_of(url))
    await database_sync_to_async(confirm_login)(pending=pending, user=owner, tailnet=tailnet)
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        response = await waiting
    assert time.monotonic() - began < 1.0, "told by a message, not by the next look"
    assert (response.user_id, response.auth_url, response.error) == (owner.pk, "", "")


async def test_a_follow_up_under_another_host_name_is_found(peer: MachinePublic) -> None:
    first = message()
    url = (await register(first, peer, "")).auth_url
    pending = await database_sync_to_async(find_login)(token=token_of(url))
    await database_sync_to_async(reject_login)(pending=pending)
    other = f"https://elsewhere.example{REGISTER_PATH}{token_of(url)}"
    assert "rejected" in (await register(follow_up(first, other), peer, "")).error


async def test_a_lost_message_is_made_good_by_the_next_look(
    peer: MachinePublic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "POLL_SECONDS", 0.1)
    changes.set_loop(None)  # nobody publishes
    first = message()
    url = (await register(first, peer, "")).auth_url
    waiting = asyncio.ensure_future(register(follow_up(first, url), peer, ""))
    pending = await database_sync_to_async(find_login)(token=token_of(url))
    await database_sync_to_async(reject_login)(pending=pending)
    async with asyncio.timeout(PATIENCE):
        assert "rejected" in (await waiting).error


@pytest.mark.parametrize(
    "followup", ["https://x/register/unknown", "https://x/other", "http://[", "nonsense"]
)
async def test_an_unknown_follow_up_gets_a_fresh_url(followup: str, peer: MachinePublic) -> None:
    response: RegisterResponse = await register(message(followup=followup), peer, "")
    assert response.auth_url
    assert response.machine_authorized is False


async def test_an_abandoned_follow_up_leaves_nothing_behind(peer: MachinePublic) -> None:
    first = message()
    url = (await register(first, peer, "")).auth_url
    waiting = asyncio.ensure_future(register(follow_up(first, url), peer, ""))
    await asyncio.sleep(0.1)
    assert handler._waiting.total() == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert handler._waiting.total() == 0


async def test_waiting_follow_ups_are_bounded(peer: MachinePublic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "MAX_WAITING", 0)
    first = message()
    url = (await register(first, peer, "")).auth_url
    with pytest.raises(LimitExceeded):
        await register(follow_up(first, url), peer, "")


async def test_a_limit_is_429_with_retry_after(peer: MachinePublic) -> None:
    body: Callable[[], bytes] = lambda: encode_json(message().to_json())  # noqa: E731
    statuses = [(await post(body(), peer)).status for _ in range(MAX_NEW_PER_MINUTE)]
    assert set(statuses) == {200}
    limited = await post(body(), peer)
    if limited.status == 200:  # the minute turned while we asked
        return
    assert limited.status == 429
    assert 0 < int(limited.headers["retry-after"]) <= 60
