"""Who listens to one tailnet: the streams of its nodes, and those of machines that use another one's keys.

No tasks, no database: what is decided here takes the time as an argument (loop time, in seconds).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from controlplane.netmap.incarnations import MAX_SHADOWS, NOBODY, SURE_SECONDS, Incarnations, Seen, describe
from controlplane.netmap.snapshot import NodeSnapshot
from wire.codec import KEEPALIVE, compress, frame_map

KEEPALIVE_SECONDS = 50
KEEPALIVE_SPREAD = 10
KEEPALIVE_PLAIN = frame_map(KEEPALIVE)
KEEPALIVE_ZSTD = frame_map(compress(KEEPALIVE))


class MapStream(Protocol):
    """One long poll's answer, as the control driver gives it."""

    @property
    def pending(self) -> int: ...

    def send(self, frame: bytes) -> bool: ...

    def close(self) -> None: ...

    def ping(self) -> int: ...

    def abort(self) -> None: ...

    def on_closed(self, callback: Callable[[], None]) -> None: ...


@dataclass(eq=False, slots=True)
class Subscriber:
    """One node's map stream here. ``behind``: it gets no deltas, for a full map is due (the first, too).

    ``epoch`` is the one of its claim, 0 before that. ``disco_key`` names the run of the client ("" = not
    said), ``seen`` what a person is told of it, ``since`` is when it came.
    """

    node_id: int
    stream: MapStream
    zstd: bool
    peers: bool = True
    epoch: int = 0
    behind: bool = True
    keepalive_due: float = 0.0
    disco_key: str = ""
    seen: Seen = NOBODY
    since: float = 0.0

    def send(self, message: bytes) -> None:
        self.stream.send(frame_map(compress(message) if self.zstd else message))


@dataclass(eq=False, slots=True)
class Audience:
    """The streams that follow a tailnet. ``shadows`` have no say (:mod:`..netmap.incarnations`).

    ``closed``: the tailnet is not served here any more.
    """

    subscribers: dict[int, Subscriber] = field(default_factory=dict)
    shadows: set[Subscriber] = field(default_factory=set)
    incarnations: Incarnations = field(default_factory=Incarnations)
    closed: bool = False

    def listeners(self) -> list[Subscriber]:
        """Every stream that follows this tailnet."""
        return [*self.subscribers.values(), *self.shadows]

    def follows(self, subscriber: Subscriber) -> bool:
        """Whether the stream is still one of them: none has taken its place, and it has not ended."""
        return self.holds(subscriber) or subscriber in self.shadows

    def holds(self, subscriber: Subscriber) -> bool:
        """Whether the stream is its node's."""
        return self.subscribers.get(subscriber.node_id) is subscriber

    # -- coming and going

    def seat(self, subscriber: Subscriber) -> None:
        """Make it its node's stream; the one before ends."""
        older = self.subscribers.get(subscriber.node_id)
        self.subscribers[subscriber.node_id] = subscriber
        if older is not None:
            older.stream.close()

    def leave(self, subscriber: Subscriber) -> bool:
        """A node's stream has ended; ``False`` when another one has taken its place."""
        if not self.holds(subscriber):
            return False
        del self.subscribers[subscriber.node_id]
        self.release(subscriber.node_id)
        return True

    def close(self) -> None:
        """End every stream, for good."""
        self.closed = True
        for subscriber in self.listeners():
            subscriber.stream.close()

    # -- two machines with the same keys

    def admits(self, node: NodeSnapshot, disco_key: str) -> bool:
        """Whether a run of a client speaks for the node, and not a machine that uses the same keys."""
        if self.incarnations.admits(node.id, disco_key, node.disco_key):
            return True
        if node.id in self.subscribers or node.online:
            return False
        self.incarnations.forget(node.id)  # the holder has gone: this one is the node now
        return True

    def add_shadow(self, subscriber: Subscriber) -> None:
        """Take in a machine whose keys another one uses; its earlier stream, or the oldest, goes."""
        others = sorted(self._shadows_of(subscriber.node_id), key=lambda one: one.since)
        same = [one for one in others if one.disco_key == subscriber.disco_key]
        if same:
            subscriber.since = same[0].since  # it has been here for so long, with interruptions
        too_many = others[: max(0, len(others) + 1 - MAX_SHADOWS)]
        for older in same or too_many:
            older.stream.close()
        self.shadows.add(subscriber)

    def release(self, node_id: int) -> None:
        """The holder is gone: the others' streams end, and who comes back first is the node."""
        self.incarnations.forget(node_id)
        for shadow in self._shadows_of(node_id):
            shadow.stream.close()

    def clones(self, now: float) -> dict[int, str]:
        """The nodes whose shadows stay, and in words which machines share their keys.

        One that has just come may be the late word of a client that was restarted.
        """
        sure = (shadow.node_id for shadow in self.shadows if now - shadow.since >= SURE_SECONDS)
        return {node_id: self._machines(node_id) for node_id in sure}

    def _machines(self, node_id: int) -> str:
        holder = self.subscribers.get(node_id)
        return describe(one.seen for one in [*([holder] if holder else []), *self._shadows_of(node_id)])

    def _shadows_of(self, node_id: int) -> list[Subscriber]:
        return [one for one in self.shadows if one.node_id == node_id]

    # -- signs of life

    def keep_alive(self, now: float) -> None:
        """Send the keepalives that are due."""
        for subscriber in self.listeners():
            if subscriber.keepalive_due <= now:
                subscriber.keepalive_due = next_keepalive(now)
                subscriber.stream.send(KEEPALIVE_ZSTD if subscriber.zstd else KEEPALIVE_PLAIN)


def next_keepalive(now: float) -> float:
    """Spread, so that streams that came together do not all wake at once."""
    return now + KEEPALIVE_SECONDS + secrets.randbelow(KEEPALIVE_SPREAD)
