"""``POST /verify``: which node keys a foreign relay may serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from accounts.actors import Actor
from accounts.services.people import suspend_member
from accounts.tenancy import scope
from controlplane.control import endpoints
from nodes.services import lifecycle
from tests.accounts import factories as people
from tests.client.magicsock.relays import derper
from tests.controlplane.devices import devices
from tests.controlplane.serving import Serve, serving
from tests.needs import need, official
from tests.nodes import factories
from tests.pages import plain_static_files
from tests.relay.peer import Peer, Refused, any_certificate

__all__ = ["plain_static_files"]


def ask(client: Client, node_key: str, **values: Any) -> Any:
    question = {"NodePublic": node_key, "Source": "192.0.2.7"}
    return client.post("/verify", question, content_type="application/json", **values)


def allows(client: Client, node_key: str) -> bool:
    answer = ask(client, node_key)
    assert answer.status_code == 200
    assert answer.json().keys() == {"Allow"}
    return bool(answer.json()["Allow"])


@pytest.mark.django_db
def test_keys_of_every_tailnet_are_served_while_they_are_good(client: Client) -> None:
    tailnet, _owner = people.tailnet()
    member = people.member(tailnet)
    own = factories.node(tailnet, member.user)  # waits for approval: it connects to its home relay, too
    ended = factories.node(tailnet, member.user)
    other, _ = people.tailnet()
    tagged = factories.node(other, tags=["tag:server"], preapproved=True)
    with scope(tailnet=tailnet):
        lifecycle.expire_node(node=ended, by=Actor.command())
    assert allows(client, own.node_key)
    assert allows(client, tagged.node_key)
    assert not allows(client, ended.node_key)
    assert not allows(client, factories.node_key())
    with scope(tailnet=tailnet):
        suspend_member(membership=member, by=Actor.command())
    assert not allows(client, own.node_key)


@pytest.mark.django_db
def test_a_rotated_key_takes_the_place_of_the_old_one(client: Client) -> None:
    tailnet, owner = people.tailnet()
    node = factories.node(tailnet, owner)
    old, new = node.node_key, factories.node_key()
    with scope(tailnet=tailnet):
        lifecycle.rotate_node_key(node=node, new_node_key=new)
    assert (allows(client, old), allows(client, new)) == (False, True)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"NodePublic": 1}', b'{"NodePublic": "nodekey:12"}', b" " * 5000]
)
def test_what_is_no_question_is_400(client: Client, body: bytes) -> None:
    assert client.post("/verify", body, content_type="application/json").status_code == 400
    assert client.get("/verify").status_code == 405


@pytest.mark.django_db
def test_one_address_asks_so_often_and_no_more(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "MAX_QUESTIONS_PER_MINUTE", 2)
    key = factories.node_key()
    answers = [ask(client, key, REMOTE_ADDR="192.0.2.1") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[-1]["Retry-After"]) > 0
    assert ask(client, key, REMOTE_ADDR="192.0.2.2").status_code == 200


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serve]:
    need("derper")
    with serving(tmp_path / "data") as running:
        yield running


async def test_derper_serves_whom_the_server_knows(server: Serve, tmp_path: Path) -> None:
    option = f"-verify-client-url={server.url}/verify"
    async with (
        devices(server, "known") as (known,),
        derper(tmp_path, official("derper") or "", option) as relay,
    ):
        await known.register(auth_key=server.auth_key("--preapproved"))
        peer = await Peer(relay.port, known.node, tls=any_certificate()).connect()
        with pytest.raises(Refused):
            await Peer(relay.port, tls=any_certificate()).connect()
        peer.writer.close()
