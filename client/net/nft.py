"""nftables: expressions in libnftables' JSON, and the program that puts them in force in one transaction.

Everything that is rendered with these has been parsed to numbers first: no text of a server reaches nft.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from client.errors import SetupError
from client.net.spans import Span
from client.prefixes import IPAddress

NFT_SECONDS = 30.0
Expression = dict[str, Any]
Load = Callable[[Mapping[str, Any]], Awaitable[None]]  # :func:`run_nft`, or what does its work elsewhere
Call = Callable[[Sequence[str], bytes], Awaitable[bytes]]  # :func:`call_nft`, or what does its work elsewhere
DROP: Expression = {"drop": None}
ACCEPT: Expression = {"accept": None}


def match(left: Expression, right: Any, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def key_of(kind: str, key: str) -> Expression:
    return {kind: {"key": key}}


def payload(protocol: str, field: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": field}}


def protocols(numbers: Sequence[int]) -> Expression:
    return match(meta("l4proto"), {"set": list(numbers)})


def sent_to(address: IPAddress) -> Expression:
    return match(payload("ip" if address.version == 4 else "ip6", "daddr"), str(address))


def address_set(spans: Sequence[Span], version: int) -> Expression:
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    texts = [(str(kind(first)), str(kind(last))) for first, last in spans]
    return {"set": [first if first == last else {"range": [first, last]} for first, last in texts]}


def port_set(spans: Sequence[Span]) -> Expression:
    return {"set": [first if first == last else {"range": [first, last]} for first, last in spans]}


def find_nft() -> str:
    """The path of nft; raises :class:`SetupError`."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which("nft", path=places)
    if found is None:
        raise SetupError("nft is missing, and without it nothing guards the tunnel: install nftables")
    return found


async def run_nft(content: Mapping[str, Any]) -> None:
    """Carry out one transaction; raises :class:`SetupError`."""
    await call_nft(("-j", "-f", "-"), json.dumps(content).encode())


async def list_nft(*words: str) -> list[dict[str, Any]]:
    """What ``nft list …`` knows, in its own JSON; raises :class:`SetupError`."""
    return listed(await call_nft(("-j", "list", *words)))


def listed(output: bytes) -> list[dict[str, Any]]:
    """The objects in what ``nft -j list …`` prints."""
    return [item for item in json.loads(output or b"{}").get("nftables", ()) if isinstance(item, dict)]


async def call_nft(words: Sequence[str], stdin: bytes = b"") -> bytes:
    """What nft prints, called with these words; raises :class:`SetupError`."""
    process = await asyncio.create_subprocess_exec(
        find_nft(),
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(NFT_SECONDS):
            output, errors = await process.communicate(stdin)
    except TimeoutError:
        raise SetupError(f"nft did not answer in {NFT_SECONDS:.0f} s; the tunnel stays as it was") from None
    finally:
        if process.returncode is None:  # nor may it act later, when nobody waits for it any more
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise refused(errors.decode("utf-8", "replace"))
    return output


def refused(complaint: str) -> SetupError:
    words = complaint.strip().splitlines()
    return SetupError(f"nft refuses the tunnel's filter: {words[0][:200] if words else 'without a word'}")
