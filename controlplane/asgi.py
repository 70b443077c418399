"""The web worker: Django pages, Channels WebSockets and the control protocol on one port, in one process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup(set_prefix=False)

import uvicorn  # noqa: E402 - Django must be set up before anything that imports models
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from accounts.changes import set_loop  # noqa: E402
from controlplane.consumers.panel import PANEL_SOCKETS  # noqa: E402
from controlplane.consumers.relay import RelayConsumer  # noqa: E402
from controlplane.control.c2n import ask_for_others  # noqa: E402
from controlplane.control.consumer import ControlConsumer  # noqa: E402
from controlplane.control.upgrade import ControlHttpProtocol  # noqa: E402
from controlplane.env import environment  # noqa: E402
from controlplane.hub import start_hub, stop_hub  # noqa: E402
from controlplane.jobs import run_jobs  # noqa: E402
from controlplane.request_threads import RequestHandler  # noqa: E402

logger = logging.getLogger("trenza.web")

GRACE_SECONDS = 5
WS_MAX_BYTES = 2 * 1024 * 1024
BACKLOG = 4096

websockets = URLRouter(
    [
        path("ts2021", ControlConsumer.as_asgi()),  # any origin: Noise authenticates
        path("relay/v1", RelayConsumer.as_asgi()),  # a bearer token authenticates
        *PANEL_SOCKETS,
    ]
)


@contextlib.asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """What lives as long as the worker: the hub, and the jobs loop where no Celery worker runs them."""
    set_loop(asyncio.get_running_loop())
    (await start_hub()).asker = ask_for_others
    jobs = None if environment().scaled else asyncio.create_task(run_jobs())
    try:
        yield
    finally:
        if jobs is not None:
            jobs.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await jobs
        await stop_hub()


async def lifespan_application(scope: Any, receive: Any, send: Any) -> None:
    """ASGI's lifespan protocol around :func:`lifespan`."""
    async with contextlib.AsyncExitStack() as stack:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await stack.enter_async_context(lifespan())
                await send({"type": "lifespan.startup.complete"})
            else:
                await stack.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return


application = ProtocolTypeRouter(
    {"http": RequestHandler(), "websocket": websockets, "lifespan": lifespan_application}
)


class WorkerServer(uvicorn.Server):
    """uvicorn that says when it is ready and stops when its parent dies."""

    def __init__(self, config: uvicorn.Config, *, lifeline: int, ready: int) -> None:
        super().__init__(config)
        self._lifeline = lifeline
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(self._lifeline, self._parent_died)
        os.write(self._ready, b"1")
        os.close(self._ready)

    def _parent_died(self) -> None:
        asyncio.get_running_loop().remove_reader(self._lifeline)
        logger.warning("the parent process died; stopping")
        self.should_exit = True


def uvicorn_config() -> uvicorn.Config:
    """The pinned way to run the application; tests and workers share it."""
    env = environment()
    return uvicorn.Config(
        application,
        http=ControlHttpProtocol,
        ws="websockets-sansio",
        ws_max_size=WS_MAX_BYTES,
        ws_per_message_deflate=False,
        reset_contextvars=True,
        loop="uvloop",
        lifespan="on",
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=str(env.tls_cert) if env.tls_cert else None,
        ssl_keyfile=str(env.tls_key) if env.tls_key else None,
    )


def run_worker(*, fd: int, lifeline: int, ready: int) -> None:
    """Serve on an inherited listening socket until told to stop (see :mod:`controlplane.supervisor`)."""
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    # What was imported lives as long as the process: a full collection, which halts every push, skips it.
    gc.collect()
    gc.freeze()
    WorkerServer(uvicorn_config(), lifeline=lifeline, ready=ready).run(sockets=[sock])
