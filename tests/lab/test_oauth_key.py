"""An OAuth client's secret as auth key, with clients as they come and with Trenza's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.lab.conftest import World
from tests.lab.traffic import reachable

pytestmark = [pytest.mark.root]


def call(world: World, token: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer of the server's API."""
    request = Request(f"{world.server.url}/api/v2{path}", json.dumps(body).encode())
    request.add_header("Authorization", f"Bearer {token}")
    with world.desk.entered(), urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


@pytest.fixture
def secret(world: World) -> str:
    """The secret of a client that may make auth keys, made by the API itself."""
    token = str(
        world.server.manage("createapitoken", "default", "--user", "owner@localhost", "--json")["key"]
    )
    wanted = {"keyType": "client", "scopes": ["auth_keys"], "tags": ["tag:ci", "tag:web"]}
    return str(call(world, token, "/tailnet/-/keys", wanted)["key"])


@pytest.mark.needs("tailscaled", "tailscale")
def test_an_official_client_joins_by_it_with_the_tags_that_it_asks_for(world: World, secret: str) -> None:
    node, other = world.official("ci", world.easy1), world.official("plain", world.easy2)
    world.join(other)
    key = f"{secret}?ephemeral=false&preauthorized=true&baseURL={world.server.url}"
    node.up(world.server.url, "--advertise-tags=tag:ci", auth_key=key)
    node.wait_state("Running")
    found = world.server.nodes()["ci"]
    assert (found["tags"], found["isEphemeral"], found["authorized"]) == (["tag:ci"], False, True)
    other.sees("ci")
    reachable(other.namespace, node.address())


@pytest.mark.needs("tailscaled", "tailscale")
def test_an_official_client_without_the_tag_s_right_is_told_so(world: World, secret: str) -> None:
    node = world.official("greedy", world.easy1)
    refused = node.cli(
        "up",
        *node.up_options(world.server.url),
        "--advertise-tags=tag:db",
        f"--auth-key={secret}?baseURL={world.server.url}",
        "--timeout=20s",
        check=False,
    )
    assert refused.returncode != 0
    assert "not permitted" in refused.stderr
    assert "greedy" not in world.server.nodes()


def test_trenzad_joins_by_the_one_in_its_environment(world: World, secret: str, tmp_path: Path) -> None:
    key = tmp_path / "auth-key"
    key.write_text(f"{secret}?ephemeral=0&preauthorized=1&baseURL={world.server.url}\n")
    other = world.trenza("desk2", world.easy2)
    world.join(other)
    node = world.trenza(
        "runner",
        world.easy1,
        TRENZA_CONTROL_URL=world.server.url,
        TRENZA_AUTH_KEY=f"file:{key}",
        TRENZA_ADVERTISE_TAGS="tag:ci,tag:web",
    )
    node.wait_state("Running")
    name = str(node.status()["Self"]["DNSName"]).partition(".")[0]
    found = world.server.nodes()[name]
    assert (found["tags"], found["isEphemeral"], found["authorized"]) == (["tag:ci", "tag:web"], False, True)
    other.sees(name)
    reachable(other.namespace, node.address())
    node.stop()
    node.start()
    node.wait_state("Running")
    assert world.server.nodes()[name]["nodeId"] == found["nodeId"]


def test_trenza_joins_by_it(world: World, secret: str) -> None:
    node, other = world.trenza("web", world.easy1), world.trenza("desk1", world.easy2)
    world.join(other)
    node.up(world.server.url, "--advertise-tags=tag:web", auth_key=f"{secret}?ephemeral=0&preauthorized=1")
    found = world.server.nodes()["web"]
    assert (found["tags"], found["isEphemeral"], found["authorized"]) == (["tag:web"], False, True)
    other.sees("web")
    reachable(other.namespace, node.address())
