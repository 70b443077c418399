"""``POST /machine/trenza/paths``: Trenza's clients tell by which paths they reach their peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.control.map import find_node
from controlplane.control.streams import answer_json, answer_text
from controlplane.snapshots import in_thread
from nodes.services.paths import record_paths
from wire.codec import decode_object
from wire.control import node_key
from wire.errors import MessageError
from wire.fields import lower_names
from wire.keys import MachinePublic
from wire.paths import parse_paths

if TYPE_CHECKING:
    from controlplane.control.driver import ResponseStream
    from wire.session import RequestReceived


async def handle_paths(
    request: RequestReceived, peer: MachinePublic, version: int, stream: ResponseStream, client_address: str
) -> None:
    """Keep the report; only a node's own machine may make one."""
    content = decode_object(request.body)
    paths = parse_paths(content)
    place = await find_node(str(node_key(lower_names(content), "nodekey")), peer)
    if place is None:
        raise MessageError("the node key does not belong to this machine")
    kept = await in_thread(record_paths)(tailnet=place.tailnet_id, node_id=place.node_id, paths=paths)
    if not kept:
        return answer_text(stream, 429, "too often: paths are told twice a minute at most")
    return answer_json(stream, {})
