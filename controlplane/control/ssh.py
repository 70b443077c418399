"""``GET /machine/ssh/action/SRC/to/DST``: what becomes of an SSH session that the policy has checked.

The client of the device that is reached asks, and holds the session until it is told. The first answer lets
in who has signed in lately enough; else it has the client show a link and ask again (``check`` in the query).
That question waits until the person has answered on the link's page, for as long as the link works.
Source: tailscale tailcfg/tailcfg.go (SSHAction), ssh/tailssh/tailssh.go.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from django.utils import timezone

from accounts.errors import Conflict, Gone
from accounts.tenancy import find_by_credential, scope
from controlplane.control.streams import answer_json, answer_text
from controlplane.control.waiting import look_or_hear
from controlplane.env import environment
from controlplane.netmap.policy.ssh import ACCEPTED, HOLD_PATH, SSHRules, Verdict
from controlplane.netmap.policy.world import World
from controlplane.snapshots import in_thread, load_part
from nodes.models import MAX_LOCAL_USER, Node
from nodes.services import sshchecks
from nodes.services.sshchecks import Answer
from wire.errors import MessageError
from wire.keys import MachinePublic

if TYPE_CHECKING:
    from controlplane.control.driver import ResponseStream
    from wire.session import RequestReceived

MAX_WAITING = 4000  # sessions waiting in this process
MAX_WAITING_PER_DEVICE = 16
CHECK_PAGE = "/ssh-check/"
HOLD = "https://unused{path}?{query}"  # the client asks over its control connection, whatever the host
NOT_ALLOWED = "the policy of this tailnet does not let you in"
TURNED_AWAY = "the session was turned away"
RAN_OUT = "nobody signed in within half an hour: connect again"
TOO_MANY = "too many sessions wait for a sign-in: try again soon"
_PATH = re.compile(re.escape(HOLD_PATH) + r"([1-9][0-9]{0,17})/to/([1-9][0-9]{0,17})")

_waiting: Counter[int] = Counter()  # sessions by the device that is reached


@dataclass(frozen=True, slots=True)
class Asked:
    """May somebody on node ``source`` be ``user`` on node ``target``? ``token`` is that of their check."""

    source: int
    target: int
    user: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two devices, of one tailnet."""

    source: Node
    target: Node


def read_question(path: str) -> Asked:
    """The question of a URL; raises :class:`MessageError`."""
    parts = urlsplit(path)
    match, query = _PATH.fullmatch(parts.path), parse_qs(parts.query)
    user = query.get("local_user", [""])[0]
    if match is None or not user or len(user) > MAX_LOCAL_USER:
        raise MessageError(f"the path must be {HOLD_PATH}SOURCE/to/TARGET?local_user=USER")
    return Asked(int(match[1]), int(match[2]), user, query.get("check", [""])[0])


async def handle_ssh_action(
    request: RequestReceived, peer: MachinePublic, version: int, stream: ResponseStream, client_address: str
) -> None:
    """Answer with an SSHAction; only the machine of the device that is reached may ask."""
    asked = read_question(request.path)
    pair = await in_thread(_find_pair)(asked, str(peer))
    if pair is None:
        return answer_text(stream, 404, "this machine has no such device, or the other one is of no peer")
    action = await (_wait(asked, pair) if asked.token else in_thread(_first_answer)(asked, pair))
    return answer_json(stream, action)


def _find_pair(asked: Asked, machine_key: str) -> Pair | None:
    target: Node | None = find_by_credential("node_id", str(asked.target))
    if target is None or target.machine_key != machine_key:
        return None
    with scope(tailnet=target.tailnet):
        source = Node.objects.filter(pk=asked.source).first()
    return None if source is None else Pair(source, target)


def _verdict(asked: Asked, pair: Pair) -> Verdict | None:
    """What the policy in force says. Needs the tailnet's scope."""
    part = load_part(pair.target.tailnet, node_ids={asked.source, asked.target})
    rules = SSHRules.of(World.of(part.policy, part.nodes, part.users))
    return rules.verdict(asked.source, asked.target, asked.user)


def _first_answer(asked: Asked, pair: Pair) -> dict[str, Any]:
    """Let in whom the policy lets in at once, or who signed in lately enough; else ask them to."""
    with scope(tailnet=pair.target.tailnet):
        verdict = _verdict(asked, pair)
        if verdict is None:
            return reject(NOT_ALLOWED)
        if verdict.check_seconds is None or _is_remembered(pair, verdict.check_seconds):
            return ACCEPTED
        try:
            new = sshchecks.begin_check(source=pair.source, target=pair.target, local_user=asked.user)
        except Conflict as error:
            return reject(str(error))
        return _hold(asked, new.token)


def _is_remembered(pair: Pair, seconds: int) -> bool:
    since = timezone.now() - timedelta(seconds=seconds)
    return seconds > 0 and sshchecks.was_let_in(source=pair.source, target=pair.target, since=since)


def _hold(asked: Asked, token: str) -> dict[str, Any]:
    """Have the client show the link, and ask again."""
    link = f"{environment().url}{CHECK_PAGE}{token}"
    path = f"{HOLD_PATH}{asked.source}/to/{asked.target}"
    query = urlencode({"local_user": asked.user, "check": token})
    return {
        "message": f"# This tailnet asks for a fresh sign-in.\r\n# To let this session in, open: {link}\r\n",
        "holdAndDelegate": HOLD.format(path=path, query=query),
    }


async def _wait(asked: Asked, pair: Pair) -> dict[str, Any]:
    if _waiting.total() >= MAX_WAITING or _waiting[asked.target] >= MAX_WAITING_PER_DEVICE:
        return reject(TOO_MANY)
    _waiting[asked.target] += 1
    try:
        return await _answered(asked, pair)
    finally:
        _waiting[asked.target] -= 1
        if not _waiting[asked.target]:
            del _waiting[asked.target]


async def _answered(asked: Asked, pair: Pair) -> dict[str, Any]:
    """Wait for the person to answer, or for the link to run out."""
    look = in_thread(partial(_look, asked, pair))
    try:
        group, action = await look()
        while action is None:
            _, action = await look_or_hear(group, look, lambda found: found[1] is not None)
    except Gone:
        return reject(RAN_OUT)
    return action


def _look(asked: Asked, pair: Pair) -> tuple[str, dict[str, Any] | None]:
    """Where news of the check are heard, and what answers it (``None`` = nothing yet).

    The policy may have changed since, and has the last word.
    """
    with scope(tailnet=pair.target.tailnet):
        check = sshchecks.find_check(
            token=asked.token, source=pair.source, target=pair.target, local_user=asked.user
        )
        answer, group = sshchecks.answer_of(check), sshchecks.check_group(check.pk)
        if answer is Answer.WAITS:
            return group, None
        if answer is Answer.TURNED_AWAY:
            return group, reject(TURNED_AWAY)
        return group, reject(NOT_ALLOWED) if _verdict(asked, pair) is None else ACCEPTED


def reject(why: str) -> dict[str, Any]:
    return {"reject": True, "message": f"# {why}\r\n"}
