"""The load generator, a process of its own: commands as JSON lines in, results as JSON lines out.

``{"do": "warm"}``, ``{"do": "connect"}``, ``{"do": "storm"}``, ``{"do": "changes", "kind": k, "count": n}``
with ``"report"`` or ``"rotate"`` as kind.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import secrets
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import uvloop

from bench.push.clients import CARRIERS, Client, Identity, connect
from wire.keys import MachinePublic, NodePrivate

SETTLE_SECONDS = 0.5
ARRIVAL_SECONDS = 10.0
COMMAND_SECONDS = 240.0
LOOK_SECONDS = 0.02
AT_ONCE = 50  # connections under way while the streams are built up


class Generator:
    """A thousand streams, and one device more that makes the changes."""

    def __init__(self, carrier: str, identities: list[Identity], port: int) -> None:
        self.kind = CARRIERS[carrier]
        self.identities = identities[1:]
        self.changer = identities[0]
        self.port = port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/key?v=130", timeout=30) as answer:
            self.server = MachinePublic.parse(json.load(answer)["publicKey"])
        self.clients: list[Client] = []
        self.actor: Client | None = None

    async def warm(self, **_: Any) -> dict[str, Any]:
        """A few streams come and go: what the server makes once is there before anything is measured."""
        few = await asyncio.gather(*map(self._stream, self.identities[:AT_ONCE]))
        for client in few:
            client.transport.abort()
        await asyncio.sleep(2 * SETTLE_SECONDS)
        return {}

    async def connect(self, **_: Any) -> dict[str, Any]:
        """Open all streams, a few at a time; every one has its map in the end."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(identity: Identity) -> Client:
            async with gate:
                return await self._stream(identity)

        self.actor = await self._stream(self.changer)
        self.clients = await asyncio.gather(*map(one, self.identities))
        await asyncio.sleep(2 * SETTLE_SECONDS)
        return {"streams": len(self.clients), "peers": self._least_peers()}

    async def _dial(self, identity: Identity) -> Client:
        return await connect(self.kind, identity, self.server, self.port)

    async def _stream(self, identity: Identity) -> Client:
        """Dial, listen, and wait for the first map."""
        client = await self._dial(identity)
        has_map = asyncio.get_running_loop().create_future()
        client.on_message = lambda: has_map.done() or has_map.set_result(None)
        client.listen()
        await has_map
        client.on_message = None
        return client

    def _least_peers(self) -> int:
        """How many peers the poorest first map had."""
        return min(len(client.read()[0].get("Peers", [])) for client in self.clients)

    async def changes(self, kind: str, count: int, **_: Any) -> dict[str, Any]:
        """Make ``count`` changes one after another; when each arrived everywhere, in seconds."""
        arrivals: list[float] = []
        gc.disable()
        for number in range(count):
            arrivals += await self._change(kind, number)
        gc.enable()
        return {"arrivals": arrivals}

    async def _change(self, kind: str, number: int) -> list[float]:
        assert self.actor is not None
        actor = self.actor
        await asyncio.sleep(SETTLE_SECONDS)
        for client in self.clients:
            client.read_notes()  # whatever came meanwhile, a PING say: records must be opened in order
            client.noting = True
        started = time.perf_counter()
        if kind == "report":
            mark = f"203.0.113.{number % 250 + 1}:{secrets.randbelow(60_000) + 1}"
            answer = actor.report((mark,))
        else:
            node = NodePrivate.generate(secrets.token_bytes(32))
            mark = str(node.public())
            answer = actor.rotate(node)
        await answer
        await self._until_all_have_noted()
        arrivals = [client.notes[0][0] - started for client in self.clients]
        for client in self.clients:
            told = json.dumps(client.read_notes())
            if mark not in told:
                raise RuntimeError("a stream got something else than the change")
        return arrivals

    async def _until_all_have_noted(self) -> None:
        for _ in range(round(ARRIVAL_SECONDS / LOOK_SECONDS)):
            if all(client.notes for client in self.clients):
                return
            await asyncio.sleep(LOOK_SECONDS)
        raise RuntimeError("a change did not reach every stream")

    async def storm(self, **_: Any) -> dict[str, Any]:
        """Every connection drops; all come back at once. Seconds until each has its whole map."""
        for client in (*self.clients, self.actor):
            if client is not None:
                client.transport.abort()
        await asyncio.sleep(SETTLE_SECONDS)
        started = time.perf_counter()

        async def come_back(identity: Identity) -> tuple[Client, float]:
            client = await self._stream(identity)
            return client, time.perf_counter() - started

        back = await asyncio.gather(*map(come_back, self.identities))
        self.clients = [client for client, _ in back]
        return {"maps": sorted(seconds for _, seconds in back), "peers": self._least_peers()}


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--carrier", choices=CARRIERS, required=True)
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    identities = [Identity.of(parts) for parts in json.loads(options.keys.read_text())]
    generator = Generator(options.carrier, identities, options.port)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        async with asyncio.timeout(COMMAND_SECONDS):
            result = await getattr(generator, command.pop("do"))(**command)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
