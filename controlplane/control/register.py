"""``POST /machine/register``: maps the wire's message onto :mod:`nodes.services.registration` and back.

A follow-up is answered when its login has been: it waits in the login's channel-layer group, looks at the
database again now and then in case a message was lost, and ends with a fresh AuthURL when the login ran out.
Source: tailscale control/controlclient/direct.go (doLogin), tailcfg/tailcfg.go.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from accounts.errors import LimitExceeded
from controlplane.control.streams import TEXT_HEADERS
from controlplane.control.waiting import look_or_hear
from controlplane.env import environment
from controlplane.measures import REGISTRATIONS
from controlplane.netmap.snapshot import TAGGED_LOGIN, TAGGED_NAME, TAGGED_USER_ID
from controlplane.snapshots import in_thread
from nodes.hostinfo import cleaned
from nodes.models import Node
from nodes.services.enrolment import Machine
from nodes.services.logins import login_group
from nodes.services.registration import (
    Outcome,
    RegistrationRequest,
    RegistrationResult,
    answer_registration,
)
from wire.codec import decode_object, encode_json
from wire.control import MIN_CAPABILITY_VERSION, RegisterRequest, RegisterResponse
from wire.keys import MachinePublic, NodePublic

if TYPE_CHECKING:
    from controlplane.control.driver import ResponseStream
    from wire.session import RequestReceived

MAX_WAITING = 4000  # follow-ups waiting in this process
MAX_WAITING_PER_LOGIN = 8  # a client that redials leaves one behind for a while; nobody needs more
BUSY_RETRY_SECONDS = 30
REGISTER_PATH = "/register/"

_waiting: Counter[int] = Counter()  # follow-ups by login


async def handle_register(
    request: RequestReceived, peer: MachinePublic, version: int, stream: ResponseStream, client_address: str
) -> None:
    """Answer one register request on ``stream``; a limit becomes 429, a bad key stays 200 with Error."""
    message = RegisterRequest.from_json(decode_object(request.body))
    try:
        response = await register(message, peer, client_address)
    except LimitExceeded as limit:
        headers = [*TEXT_HEADERS, ("retry-after", str(limit.retry_after))]
        stream.finish(str(limit).encode(), 429, headers)
    else:
        stream.finish(encode_json(response.to_json()))


async def register(message: RegisterRequest, peer: MachinePublic, client_address: str) -> RegisterResponse:
    """What to answer; waits while the message follows up an open login. Raises :class:`LimitExceeded`."""
    if message.version < MIN_CAPABILITY_VERSION:
        return RegisterResponse(
            error=f"this client is too old for this server (capability version {message.version}, "
            f"at least {MIN_CAPABILITY_VERSION} is needed): update it"
        )
    request = read_request(message, peer, client_address)
    response = await _respond(request)
    if isinstance(response, RegisterResponse):
        return response
    return await _wait(request, response)


def read_request(message: RegisterRequest, peer: MachinePublic, client_address: str) -> RegistrationRequest:
    """The message in plain values; who asks is the Noise peer, whatever the message says."""
    return RegistrationRequest(
        machine=Machine(
            machine_key=str(peer),
            node_key=_key_text(message.node_key),
            hostinfo=cleaned(message.hostinfo.raw),
            ephemeral=message.ephemeral,
            expiry=message.expiry,
            capability_version=message.version,
        ),
        old_node_key=_key_text(message.old_node_key),
        auth_key=message.auth_key,
        followup=_login_token(message.followup),
        rotate=message.trenza_rotate,
        client_address=client_address,
    )


def _key_text(key: NodePublic) -> str:
    return "" if key.is_zero else str(key)


def _login_token(followup: str) -> str:
    """The token of an AuthURL, found by its path: clients may reach us under another name than we print."""
    try:
        path = urlsplit(followup).path
    except ValueError:
        return ""
    if followup and not path.startswith(REGISTER_PATH):
        return "unknown"  # a follow-up all the same: it gets a fresh AuthURL
    return path.removeprefix(REGISTER_PATH)


def _answer(request: RegistrationRequest) -> RegisterResponse | int:
    """The response, or the id of the login to wait for. Runs in a database thread."""
    result = answer_registration(request=request)
    if result.outcome is not Outcome.WAIT:
        REGISTRATIONS.labels(result.outcome.value).inc()
    if result.outcome is Outcome.WAIT:
        return result.login_id
    if result.outcome is Outcome.LIMITED:
        raise LimitExceeded(result.message, result.retry_after)
    return write_response(result, base_url=environment().url)


async def _respond(request: RegistrationRequest) -> RegisterResponse | int:
    return await in_thread(_answer)(request)


def _is_response(found: RegisterResponse | int) -> bool:
    return isinstance(found, RegisterResponse)


async def _wait(request: RegistrationRequest, login_id: int) -> RegisterResponse:
    """Wait until the login is answered or has run out: at most its lifetime."""
    if _waiting.total() >= MAX_WAITING or _waiting[login_id] >= MAX_WAITING_PER_LOGIN:
        raise LimitExceeded("too many logins are waiting; try again soon", BUSY_RETRY_SECONDS)
    _waiting[login_id] += 1
    try:
        while True:
            response = await look_or_hear(login_group(login_id), partial(_respond, request), _is_response)
            if isinstance(response, RegisterResponse):
                return response
    finally:
        _waiting[login_id] -= 1
        if not _waiting[login_id]:
            del _waiting[login_id]


def write_response(result: RegistrationResult, *, base_url: str) -> RegisterResponse:
    """The wire's answer to a result. A pending node is told ``MachineAuthorized`` here: its map says no."""
    if result.outcome is Outcome.REFUSED:
        return RegisterResponse(error=result.message)
    if result.outcome is Outcome.KEY_EXPIRED:
        return RegisterResponse(node_key_expired=True)
    if result.outcome is Outcome.AUTH_URL:
        return RegisterResponse(auth_url=f"{base_url}{REGISTER_PATH}{result.token}", machine_authorized=False)
    assert result.node is not None  # noqa: S101 - REGISTERED always carries its node
    return _registered(result.node)


def _registered(node: Node) -> RegisterResponse:
    if node.user is None:
        return RegisterResponse(
            user_id=TAGGED_USER_ID,
            login_name=TAGGED_LOGIN,
            display_name=TAGGED_NAME,
            provider="trenza",
            created=node.created,
        )
    return RegisterResponse(
        user_id=node.user.pk,
        login_name=node.user.login_name,
        display_name=node.user.name,
        profile_pic_url=node.user.picture_url,
        provider="trenza",
        created=node.user.created,
    )
