"""Real relays for the client's tests: Trenza's own, and derper where ``TRENZA_DERPER`` names one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wire.derpmap import DERPMap, DERPNode, DERPRegion

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 20.0
REGION = 900


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(slots=True, eq=False)
class RelayProcess:
    """A running relay on 127.0.0.1, and how the DERP map describes it."""

    process: asyncio.subprocess.Process
    port: int
    certificate: bytes

    @property
    def node(self) -> DERPNode:
        return DERPNode(
            name="900a",
            region_id=REGION,
            host_name="127.0.0.1",
            ipv4="127.0.0.1",
            ipv6="none",
            derp_port=self.port,
            stun_port=-1,
            cert_name="sha256-raw:" + hashlib.sha256(self.certificate).hexdigest(),
        )

    @property
    def map(self) -> DERPMap:
        return map_of(self.node)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        await self.process.wait()


def map_of(*nodes: DERPNode) -> DERPMap:
    region = DERPRegion(region_id=REGION, region_code="test", region_name="Test", nodes=nodes)
    return DERPMap(regions={REGION: region})


@contextlib.asynccontextmanager
async def trenza_relay(
    folder: Path,
    *,
    port: int | None = None,
    extra: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
) -> AsyncIterator[RelayProcess]:
    """``prefix`` is put before the command (to enter a namespace)."""
    chosen = port or free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "TRENZA_RELAY_LISTEN": f"127.0.0.1:{chosen}",
        "TRENZA_RELAY_STUN": "off",
        "TRENZA_RELAY_DATA": str(folder),
        "TRENZA_RELAY_HOSTS": "127.0.0.1",
        "TRENZA_RELAY_ADMISSION": "open",
    } | dict(extra or {})
    command = (*prefix, sys.executable, "-m", "relay")
    async with _running(command, environment) as process:
        certificate = await _until_certificate(chosen, process) if not prefix else b""
        yield RelayProcess(process, chosen, certificate)


@contextlib.asynccontextmanager
async def derper(folder: Path, program: str, *extra: str) -> AsyncIterator[RelayProcess]:
    port = free_port()
    options = [f"-a=127.0.0.1:{port}", "-http-port=-1", "-stun=false", f"-c={folder / 'derper.json'}"]
    options += ["-certmode=manual", "-hostname=127.0.0.1", f"-certdir={folder}"]
    async with _running((program, *options, *extra), {"HOME": str(folder)}) as process:
        yield RelayProcess(process, port, await _until_certificate(port, process))


@contextlib.asynccontextmanager
async def _running(
    command: tuple[str, ...], environment: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()


async def _until_certificate(port: int, process: asyncio.subprocess.Process) -> bytes:
    """What the relay shows on TLS, once it listens."""
    async with asyncio.timeout(START_SECONDS):
        while process.returncode is None:
            with contextlib.suppress(OSError):
                pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
                return ssl.PEM_cert_to_DER_cert(pem)
            await asyncio.sleep(0.05)
    raise AssertionError(f"the relay ended with status {process.returncode}")
