"""``POST /machine/trenza/flows``: Trenza's clients tell whom they have talked to, where that is logged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from accounts.errors import Forbidden, LimitExceeded
from controlplane.control.map import find_node
from controlplane.control.streams import answer_json, answer_text
from controlplane.services.flows import record_flows
from controlplane.snapshots import in_thread
from wire.codec import decode_object
from wire.control import node_key
from wire.errors import MessageError
from wire.fields import lower_names
from wire.flows import parse_report
from wire.keys import MachinePublic

if TYPE_CHECKING:
    from controlplane.control.driver import ResponseStream
    from wire.session import RequestReceived


async def handle_flows(
    request: RequestReceived, peer: MachinePublic, version: int, stream: ResponseStream, client_address: str
) -> None:
    """Keep the report; only a node's own machine may make one."""
    content = decode_object(request.body)
    place = await find_node(str(node_key(lower_names(content), "nodekey")), peer)
    if place is None:
        raise MessageError("the node key does not belong to this machine")
    report = await asyncio.to_thread(parse_report, content)
    try:
        await in_thread(record_flows)(tailnet_id=place.tailnet_id, node_id=place.node_id, report=report)
    except (Forbidden, LimitExceeded) as error:
        return answer_text(stream, error.status, str(error))
    return answer_json(stream, {})
