"""Who is shown the server's metrics."""

from __future__ import annotations

import dataclasses

import pytest
from django.test import Client

from controlplane import health
from controlplane.env import environment
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
def test_metrics_are_shown_to_this_host(client: Client, peer: str) -> None:
    answer = client.get("/metrics", REMOTE_ADDR=peer)
    assert answer.status_code == 200
    assert b"# TYPE " in answer.content
    assert client.get("/metrics", REMOTE_ADDR="192.0.2.9").status_code == 404


@pytest.mark.parametrize("header", ["X_FORWARDED_FOR", "FORWARDED", "VIA", "X_REAL_IP"])
def test_metrics_are_not_passed_on_by_a_local_proxy(client: Client, header: str) -> None:
    assert client.get("/metrics", **{f"HTTP_{header}": "127.0.0.1"}).status_code == 404  # type: ignore[arg-type]


def test_metrics_by_the_token_only(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    env = dataclasses.replace(environment(), metrics_token="open sesame")
    monkeypatch.setattr(health, "environment", lambda: env)
    for words, status in (("", 404), ("Bearer open", 404), ("Bearer open sesame", 200)):
        for peer in ("127.0.0.1", "192.0.2.9"):
            answer = client.get("/metrics", HTTP_AUTHORIZATION=words, REMOTE_ADDR=peer)
            assert answer.status_code == status, (words, peer)
