"""Tells Trenza's server by which paths this node reaches its peers; other servers do not want to know."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from client.control.session import Session
from client.errors import ControlError
from client.magicsock.endpoints import format_address
from client.magicsock.results import PathStatus
from wire.codec import encode_json
from wire.keys import NodePublic
from wire.paths import MAX_LATENCY_MS, MAX_PATHS, PATH, PeerPath, report_json

log = logging.getLogger("trenzad.paths")

LOOK_SECONDS = 5.0
MIN_GAP_SECONDS = 30.0  # between reports, and only of what has changed
MAX_WAIT_SECONDS = 30.0  # for paths that change at each look
UNKNOWN_PATH = (404, 405, 501)
SAME_MS = 5  # a latency that has moved by less than this, or by less than a third, is no news
SAME_SHARE = 1 / 3

Paths = tuple[PeerPath, ...]


def peer_paths(live: Mapping[int, PathStatus]) -> Paths:
    """What is told of the peers that this node talks to, by node ID, bounded. Pure."""
    return tuple(_peer_path(node_id, live[node_id]) for node_id in sorted(live)[:MAX_PATHS])


def _peer_path(node_id: int, status: PathStatus) -> PeerPath:
    if status.current is not None:
        latency = min(MAX_LATENCY_MS, math.ceil(status.latency * 1000))
        return PeerPath(node_id=node_id, endpoint=format_address(status.current), latency_ms=latency)
    return PeerPath(node_id=node_id, derp_region=status.relay_region, reason=status.reason)


def steadied(paths: Iterable[PeerPath], told: Iterable[PeerPath]) -> Paths:
    """``paths`` with the latencies that were told wherever they still hold, roughly. Pure."""
    known = {(path.node_id, path.endpoint): path.latency_ms for path in told}
    return tuple(_steadied(path, known.get((path.node_id, path.endpoint), 0)) for path in paths)


def _steadied(path: PeerPath, told_ms: int) -> PeerPath:
    holds = told_ms and path.latency_ms and _is_near(path.latency_ms, told_ms)
    return replace(path, latency_ms=told_ms) if holds else path


def _is_near(one_ms: int, other_ms: int) -> bool:
    return abs(one_ms - other_ms) < max(SAME_MS, SAME_SHARE * max(one_ms, other_ms))


class PathReporter:
    """``live``: the paths in use; ``session`` and ``key``: what there is of them now."""

    def __init__(
        self,
        *,
        live: Callable[[], Mapping[int, PathStatus]],
        session: Callable[[], Session | None],
        key: Callable[[], NodePublic | None],
    ) -> None:
        self._live = live
        self._session = session
        self._key = key
        self._told_to: Session | None = None
        self._told: Paths = ()
        self._seen: Paths = ()
        self._may_tell_at = float("-inf")
        self._is_welcome = True

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except (ControlError, TimeoutError) as error:  # the session may be ending: its loop sees to that
                log.debug("paths are not told: %s", error)

    async def look(self) -> None:
        """Tell what is new and has settled, if it is time. Raises :class:`ControlError`."""
        session, key, now = self._session(), self._key(), asyncio.get_running_loop().time()
        if session is None or key is None:
            return
        if session is not self._told_to:
            self._told_to, self._told, self._is_welcome = session, (), True
            self._may_tell_at = max(self._may_tell_at, now)
        before, self._seen = self._seen, steadied(peer_paths(self._live()), (*self._seen, *self._told))
        settled = self._seen == before or now >= self._may_tell_at + MAX_WAIT_SECONDS
        if not (self._is_welcome and settled and now >= self._may_tell_at) or self._seen == self._told:
            return
        self._may_tell_at, paths = now + MIN_GAP_SECONDS, self._seen
        answer = await session.link.request("POST", PATH, encode_json(report_json(key, paths)))
        self._is_welcome = answer.status not in UNKNOWN_PATH
        if answer.status == 200:
            self._told = paths
