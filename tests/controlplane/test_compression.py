"""Pages cross the network compressed; what is compressed already, or shown once, is left alone."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from accounts.models import Tailnet, User
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

LATER_BYTES = 30_000  # what a page may weigh when its static files are known already
DEVICES = 60
GZIP = {"Accept-Encoding": "gzip, br"}


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def weight(answer: Any) -> int:
    assert answer["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in answer["Vary"]
    assert gzip.decompress(answer.content)
    return len(answer.content)


def test_a_full_list_is_light(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    for number in range(DEVICES):
        machines.node(
            tailnet,
            None if number % 2 else owner,
            hostname=f"some-quite-long-host-name-{number * 7919}",
            preapproved=number % 5 > 0,
            tags=["tag:server", f"tag:team{number % 9}"] if number % 2 else (),
        )
    visitor = Visitor(owner)
    for path in ("/devices", "/devices?page=2", "/search/results?q=name", "/devices/clean-up"):
        assert weight(visitor.get(path, headers=GZIP)) < LATER_BYTES, path


def test_only_pages_that_are_read_are_compressed(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    machines.node(tailnet, owner)
    visitor = Visitor(owner)
    assert "Content-Encoding" not in visitor.get("/devices")
    assert "Content-Encoding" not in visitor.get("/devices/export.csv", headers=GZIP)
    assert "Content-Encoding" not in visitor.get("/key?v=130", headers=GZIP)
    made = visitor.post("/keys/new", {"tailnet": visitor.tailnet_id, "days": "7"}, headers=GZIP)
    assert b"tskey-auth-" in made.content
    assert "Content-Encoding" not in made


def test_no_two_answers_show_the_csrf_token_alike(place: tuple[Tailnet, User]) -> None:
    visitor = Visitor(place[1])
    seen = {visitor.get("/devices").context["csrf_token"] + "" for _ in range(3)}
    assert len(seen) == 3
