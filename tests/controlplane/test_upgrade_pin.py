"""Carrier 1 hangs on methods of uvicorn's protocol; this fails when an upgrade of uvicorn changes them."""

from __future__ import annotations

import hashlib
import inspect

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXPECTED = {
    "_get_upgrade": "7b1305aac7b87064",
    "_should_upgrade": "8fcad1ab8e096739",
    "data_received": "010a7ae59a5d3b1a",
    "handle_websocket_upgrade": "179c4f769386ab89",
    "on_headers_complete": "1ea8589acfad92d8",
    "on_message_complete": "1fbad42dc31fc01f",
}


def digest(name: str) -> str:
    return hashlib.sha256(inspect.getsource(getattr(HttpToolsProtocol, name)).encode()).hexdigest()[:16]


def test_the_methods_that_the_carrier_extends_are_unchanged() -> None:
    assert {name: digest(name) for name in EXPECTED} == EXPECTED
