"""Whatever is asked through the open door is answered, or refused with a declared error."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.backend import Backend
from client.commands import Commands
from client.errors import ClientError
from client.localapi.routes import PREFIX, Routes, check_operator
from client.localapi.server import Request
from client.prefs import Prefs
from client.store import Store
from tests.client.fakes import FakeHost
from tests.examples import examples
from wire.codec import encode_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31)
    | st.floats(allow_nan=False)
    | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
)
known = st.sampled_from([*Prefs().to_json(), "Prefs", "AuthKey", "ForceReauth", "Target", "Timeout"])
objects = st.dictionaries(known | st.text(max_size=10), values, max_size=5)
CHANGING = [
    ("POST", "up"),
    ("PATCH", "prefs"),
    ("POST", "ping"),
    ("POST", "rotate-keys"),
    ("POST", "netcheck"),
]


def ask(method: str, path: str, body: bytes = b"", **query: str) -> Any:
    """The answer of a daemon that has not begun to work; raises ``ClientError``."""

    async def answer() -> Any:
        backend = Backend(store=store, make_tunnel=FakeHost().make_tunnel)
        return await Routes(backend, Commands(backend)).handle(
            Request(method, PREFIX + path, query, {}, body)
        )

    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name))
        store.open()
        try:
            return asyncio.run(answer())
        finally:
            store.close()


@settings(max_examples=examples(2))
@given(route=st.sampled_from(CHANGING), content=objects, nested=objects)
def test_any_json_is_answered_or_refused(
    route: tuple[str, str], content: dict[str, Any], nested: dict[str, Any]
) -> None:
    for body in (content, content | {"Prefs": nested}):
        try:
            ask(*route, encode_json(body))
        except ClientError:
            continue


@given(st.binary(max_size=50))
def test_any_body_is_answered_or_refused(body: bytes) -> None:
    try:
        ask("PATCH", "prefs", body)
    except ClientError:
        return


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "nothing"), ("GET", "up"), ("DELETE", "prefs"), ("GET", "../prefs"), ("PUT", "")],
)
def test_what_is_no_route_is_not_found(method: str, path: str) -> None:
    with pytest.raises(ClientError, match="there is no"):
        ask(method, path)


def test_an_operator_must_exist() -> None:
    check_operator("root")
    check_operator("")
    with pytest.raises(ClientError, match="no user"):
        check_operator("no-such-user-here")
