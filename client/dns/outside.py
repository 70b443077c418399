"""The server's own name, asked of this host's resolvers outside the tunnel.

While an exit node is wanted and not there nothing of this host gets out, programs' DNS neither. The daemon
still has to find its server, for there it may be told of a better exit node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from client.dns.answers import Unreadable, describe, make_query
from client.dns.config import Upstream, Upstreams
from client.dns.upstream import Forwarder, NoAnswer

# systemd-resolved's own file first: the stub in the other would ask as everybody, into the tunnel.
RESOLV_CONFS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
MAX_BYTES = 64 * 1024
MAX_SERVERS = 3
ASK_SECONDS = 4.0
KINDS = ("A", "AAAA")


def nameservers(paths: Iterable[Path] = RESOLV_CONFS) -> Upstreams:
    """The resolvers of the first file that names any but our own."""
    for path in paths:
        try:
            with path.open(errors="replace") as file:
                lines = file.read(MAX_BYTES).splitlines()
        except OSError:
            continue
        words = (line.split() for line in lines)
        texts = (parts[1].partition("%")[0] for parts in words if parts[:1] == ["nameserver"] and parts[1:])
        found = [Upstream(one.host, one.port, marked=True) for one in map(Upstream.parse, texts) if one]
        if found:
            return tuple(found[:MAX_SERVERS])
    return ()


async def addresses_outside(
    host: str, paths: Iterable[Path] = RESOLV_CONFS, forwarder: Forwarder | None = None
) -> list[str]:
    """IPv4, then IPv6 addresses of a name; none when nobody answers in time."""
    servers, forwarder = nameservers(paths), forwarder or Forwarder()
    if not servers:
        return []
    try:
        async with asyncio.timeout(ASK_SECONDS):
            answers = await asyncio.gather(*(_ask(forwarder, host, kind, servers) for kind in KINDS))
    except TimeoutError:
        return []
    finally:
        await forwarder.close()
    return [address for found in answers for address in found]


async def _ask(forwarder: Forwarder, host: str, kind: str, servers: Upstreams) -> list[str]:
    try:
        answer = await forwarder.ask(make_query(host, kind), servers)
        _, records = describe(answer)
    except (NoAnswer, Unreadable, ValueError):  # the last: a name that DNS can have none of
        return []
    parts = (line.split() for line in records)
    return [words[4] for words in parts if len(words) == 5 and words[3] == kind]
