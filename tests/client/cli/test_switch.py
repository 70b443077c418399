"""``trenza switch``: to another account and back, in front of a daemon whose host is only remembered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client.store import Store
from tests.client.cli.test_cli import Machine, joined, machine, machine_in
from tests.client.fakes import key, netmap, node
from wire.netmap import UserProfile

__all__ = ["joined", "machine"]

URL = "http://127.0.0.1:1"


def prepare(store: Store, number: int, tailnet: str, login: str) -> None:
    """The account in use has signed in, and has a cached netmap."""
    store.set_identity(node=key(number), control_url=URL)
    store.set_prefs(store.prefs.edited({"WantRunning": True, "ControlURL": URL}))
    shown = netmap(
        own=node(number, name=f"me.{tailnet}.", user=7, public=key(number).public()),
        domain=tailnet,
        user_profiles={7: UserProfile(id=7, login_name=login)},
    )
    store.save_netmap(shown)
    store.describe_profile(shown)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Machine]:
    """Ann's account in use, Bob's beside it."""
    store = Store(tmp_path / "state")
    store.open()
    prepare(store, 1, "ann.example", "ann@example.com")
    first = store.profiles.current_id
    store.new_profile()
    prepare(store, 2, "bob.example", "bob@example.com")
    store.switch(first)
    store.close()
    async with machine_in(tmp_path) as made:
        await made.backend.settle()
        yield made


async def accounts(machine: Machine) -> dict[str, bool]:
    listed = json.loads(await machine.says("switch", "--list", "--json"))
    return {profile["account"]: profile["selected"] for profile in listed}


async def test_a_list_marks_the_one_in_use(two: Machine) -> None:
    lines = (await two.says("switch", "--list")).splitlines()
    assert lines[0].split() == ["ID", "Tailnet", "Account"]
    assert [line.split()[1:] for line in lines[1:]] == [
        ["ann.example", "ann@example.com*"],
        ["bob.example", "bob@example.com"],
    ]


async def test_to_another_one_and_back(two: Machine) -> None:
    """The whole device changes: keys, addresses, tunnel; and nothing is lost."""
    assert (await two.says("ip", "-4")).strip() == "100.64.0.1"
    text = await two.says("switch", "bob@example.com")
    assert text == 'Switching to account "bob@example.com"\nSuccess.\n'
    assert (await two.says("ip", "-4")).strip() == "100.64.0.2"
    assert two.host.engine.key == key(2)
    assert await accounts(two) == {"ann@example.com": False, "bob@example.com": True}
    assert "Already on account" in await two.says("switch", "bob.example")
    await two.says("switch", "ann.example")
    assert two.host.engine.key == key(1)
    assert (await two.says("whoami")).splitlines()[1].split() == ["Name:", "me.ann.example"]


async def test_unknown_ones_are_refused(two: Machine) -> None:
    assert "no account named 'carol'" in await two.refuses("switch", "carol")
    assert (await two.run("switch")).exit_code == 2


async def test_one_can_be_removed_but_not_the_one_in_use(two: Machine) -> None:
    assert "is in use" in await two.refuses("switch", "remove", "ann.example")
    await two.says("switch", "remove", "bob.example")
    assert await accounts(two) == {"ann@example.com": True}


async def test_a_login_that_fails_leaves_everything_as_it_was(two: Machine) -> None:
    assert "refuses the connection" in await two.refuses("login", "--hostname=other", "--timeout=20s")
    assert await accounts(two) == {"ann@example.com": True, "bob@example.com": False}
    assert (await two.says("ip", "-4")).strip() == "100.64.0.1"


async def test_a_device_that_never_signed_in_has_one_account(machine: Machine) -> None:
    listed = json.loads(await machine.says("switch", "--list", "--json"))
    assert [(profile["tailnet"], profile["selected"]) for profile in listed] == [("", True)]
