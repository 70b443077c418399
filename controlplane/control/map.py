"""``POST /machine/map``: the long poll, lite updates, and single maps.

===== ========= ==========================================================================
Stream OmitPeers meaning
===== ========= ==========================================================================
true   false     long poll; says nothing durable about the node (its Hostinfo may be stale)
false  true      lite update: keep what it reports, answer 200 with an empty body
false  false     one whole map, then the end
===== ========= ==========================================================================

Source: tailscale tailcfg/tailcfg.go (MapRequest), control/controlclient/direct.go.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from accounts.tenancy import find_by_credential
from controlplane.control.streams import answer_text
from controlplane.hub import get_hub
from controlplane.netmap.builder import farewell_map
from controlplane.snapshots import in_thread
from nodes.hostinfo import cleaned, endpoints, hostname, offered_routes, request_tags, used_exit_node
from nodes.services.volatile import Volatile, update_node_state
from wire.codec import compress, decode_object, encode_json, frame_map
from wire.control import MIN_CAPABILITY_VERSION, Hostinfo, MapRequest
from wire.keys import DiscoPublic, MachinePublic

if TYPE_CHECKING:
    from controlplane.control.driver import ResponseStream
    from wire.session import RequestReceived

UNKNOWN_NODE = "this server does not know this node key; sign in again"
TOO_OLD = (
    "this client is too old for this server (capability version {version}, at least {minimum}): update it"
)
FAREWELL_SECONDS = 60.0  # how often a client whose node is gone comes to hear it


# When everybody comes back at once, the first lookups load the tailnets and the others find them in memory.
_lookups = asyncio.Semaphore(4)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proven node lives."""

    tailnet_id: int
    node_id: int


async def handle_map(
    request: RequestReceived, peer: MachinePublic, version: int, stream: ResponseStream, client_address: str
) -> None:
    """Answer one map request on ``stream``."""
    message = MapRequest.from_json(decode_object(request.body))
    if message.version < MIN_CAPABILITY_VERSION:
        text = TOO_OLD.format(version=message.version, minimum=MIN_CAPABILITY_VERSION)
        return answer_text(stream, 400, text)
    place = await find_node(str(message.node_key), peer)
    if place is None and message.stream:
        return await _say_farewell(message, peer, stream)
    if place is None:
        return answer_text(stream, 404, UNKNOWN_NODE)
    if message.stream:
        return await _long_poll(message, place, stream, client_address)
    if not message.read_only:
        await take_report(message, place)
        if message.omit_peers:
            stream.finish(b"")
            return None
    return await _single_map(message, place, stream)


async def find_node(node_key: str, peer: MachinePublic) -> Place | None:
    """The node of this key, only if the key belongs to the Noise peer's machine."""
    hub, machine_key = get_hub(), str(peer)
    if (node := hub.find_by_key(node_key)) is not None:
        tailnet_id = hub.tailnet_of_key(node_key)
        known = node.machine_key == machine_key and tailnet_id is not None
        return Place(tailnet_id or 0, node.id) if known else None
    async with _lookups:
        if hub.find_by_key(node_key) is not None:  # its tailnet was loaded while this one waited
            return await find_node(node_key, peer)
        row = await in_thread(find_by_credential)("node_key", node_key)
        if row is None or row.machine_key != machine_key:
            return None
        known = await hub.learn(row.tailnet_id, row.pk, node_key)
        return Place(row.tailnet_id, row.pk) if known else None


async def _long_poll(message: MapRequest, place: Place, stream: ResponseStream, client_address: str) -> None:
    hub = get_hub()
    stream.start()
    zstd = message.compress == "zstd"
    found = await hub.subscribe(
        place.tailnet_id,
        place.node_id,
        stream,
        zstd=zstd,
        peers=not message.omit_peers,
        disco_key=_text(message.disco_key),
        address=client_address,
    )
    if not found:
        stream.close()
        return
    # The stream is not where a node reports; but the first one may come before any report.
    hub.report(place.tailnet_id, place.node_id, capability_version=message.version)


async def _say_farewell(message: MapRequest, peer: MachinePublic, stream: ResponseStream) -> None:
    """Tell a node that was deleted, or never was, that its key has ended: it asks for a login then.

    To a refusal an official client only asks again, and says that all is well. The stream stays for a while,
    because each map makes clients forget how long they have waited between their polls.
    """
    stream.start()
    content = encode_json(farewell_map(str(message.node_key), str(peer), datetime.now(UTC)))
    stream.send(frame_map(compress(content) if message.compress == "zstd" else content))
    await asyncio.sleep(FAREWELL_SECONDS)
    stream.close()


async def _single_map(message: MapRequest, place: Place, stream: ResponseStream) -> None:
    content = await get_hub().full_map(place.tailnet_id, place.node_id, peers=not message.omit_peers)
    if content is None:
        return answer_text(stream, 404, UNKNOWN_NODE)
    stream.start()
    stream.finish(frame_map(compress(content) if message.compress == "zstd" else content))
    return None


async def take_report(message: MapRequest, place: Place) -> None:
    """Keep what a node says of itself: pushed to its peers at once, written behind.

    A client says its new disco key once, and cannot be reached without it: that is written before the
    answer. Its name and offered routes are durable: a change of those is written now and published.
    """
    hub = get_hub()
    await hub.room(place.tailnet_id)
    if not hub.admits(place.tailnet_id, place.node_id, _text(message.disco_key)):
        return  # a machine that uses another one's keys has no say
    facts: dict[str, Any] = {
        "capability_version": message.version,
        "endpoints": endpoints(message.endpoints),
    }
    if disco_key := _text(message.disco_key):
        facts["disco_key"] = disco_key
    news = hub.report(place.tailnet_id, place.node_id, **facts)
    if message.hostinfo is not None:
        await _take_hostinfo(message.hostinfo, message.version, place)
    if "disco_key" in news:
        await hub.write_now(place.tailnet_id)


def _text(key: DiscoPublic) -> str:
    return "" if key.is_zero else str(key)


async def _take_hostinfo(hostinfo: Hostinfo, version: int, place: Place) -> None:
    hub = get_hub()
    reported = cleaned(hostinfo.raw)
    if _durable(reported) != _durable(hub.hostinfo_of(place.tailnet_id, place.node_id)):
        # First, so that a failed write leaves the difference for the client's next try to find.
        report = Volatile(node_id=place.node_id, hostinfo=reported, capability_version=version)
        await in_thread(update_node_state)(tailnet=place.tailnet_id, report=report)
    hub.take_hostinfo(place.tailnet_id, place.node_id, reported)


def _durable(hostinfo: dict[str, Any]) -> tuple[Any, ...]:
    return hostname(hostinfo), offered_routes(hostinfo), request_tags(hostinfo), used_exit_node(hostinfo)
