"""Django on ASGI: each request is answered in one thread of a bounded pool, from beginning to end.

All our views are synchronous. Django's own handler would give every request a thread and a connection to the
database of its own, and go to and fro between thread and loop, which costs more than many an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.http import FileResponse
from django.urls import set_script_prefix

REQUEST_THREADS = 32  # of one worker; each keeps a database connection for as long as CONN_MAX_AGE says


class RequestHandler(ASGIHandler):
    """The ASGI application for HTTP. What a thread begins it also ends: signals, connections, files."""

    def __init__(self) -> None:
        BaseHandler.__init__(self)
        self.load_middleware(is_async=False)
        threads = ThreadPoolExecutor(REQUEST_THREADS, thread_name_prefix="request")
        self._respond_in_thread = sync_to_async(self._respond, thread_sensitive=False, executor=threads)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        answering = asyncio.ensure_future(self._answer(scope, body, send))
        leaving = asyncio.ensure_future(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:  # who has left gets no more of a long answer
            for task in (answering, leaving):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, RequestAborted):
                    await task

    async def _answer(self, scope: Any, body: Any, send: Any) -> None:
        response = await self._respond_in_thread(scope, body)
        if not response.streaming:
            await self.send_response(response, send)
            return
        async with ThreadSensitiveContext():
            try:
                await self.send_response(response, send)
            finally:
                await sync_to_async(response.close)()

    def _respond(self, scope: Any, body: Any) -> Any:
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=self.__class__, scope=scope)
        request, refused = self.create_request(scope, body)
        response: Any = refused if request is None else self.get_response(request)
        response._handler_class = self.__class__
        if isinstance(response, FileResponse):
            response.block_size = self.chunk_size
        if request is None:
            body.close()
        if not response.streaming:
            response.close()
        return response
