"""SSH between official clients as the policy says: held for a sign-in, let in, turned away."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import World
from tests.lab.official import OfficialNode
from tests.lab.person import Person
from tests.lab.processes import wait_for
from tests.lab.traffic import reachable

pytestmark = [pytest.mark.root, pytest.mark.needs("tailscaled", "tailscale", "ssh")]

LINK = re.compile(r"http\S+/ssh-check/[\w-]+")
SESSION_SECONDS = 60.0
OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "ConnectTimeout=20")


class SSH:
    """``ssh root@NODE echo WORD`` from another node: what it has shown so far, and how it ended."""

    def __init__(self, process: subprocess.Popen[Any], log: Path) -> None:
        self.process, self.log = process, log

    @property
    def shown(self) -> str:
        return self.log.read_text()

    def link(self) -> str:
        """The link that the session waits at."""
        found: re.Match[str] = wait_for("ssh shows a link", lambda: LINK.search(self.shown) or self._failed())
        return found[0]

    def _failed(self) -> None:
        assert self.process.poll() is None, self.shown

    def ends(self) -> int:
        return self.process.wait(SESSION_SECONDS)


@contextmanager
def ssh(source: OfficialNode, target: OfficialNode, *command: str) -> Iterator[SSH]:
    options = [part for option in OPTIONS for part in ("-o", option)]
    log = source.namespace.folder / "ssh.log"
    with log.open("wb") as out:
        process = source.namespace.spawn(
            "ssh",
            *options,
            f"root@{target.address()}",
            *command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield SSH(process, log)
    finally:
        process.kill()
        process.wait()


def answer(world: World, link: str, answer: str) -> None:
    """Somebody signs in because of the link, and answers on its page."""
    person: Person = world.server.person(world.desk)
    page = person.open(link)
    assert page.status == 200, page.text
    assert person.send(page, page.form(), answer=answer).status == 200


def test_checked_session_waits_for_a_sign_in_and_the_next_one_does_not(world: World) -> None:
    laptop, box = world.official(world.name(), world.easy1), world.official(world.name(), world.easy2)
    world.join(laptop)
    world.join(box, "--ssh")
    laptop.sees(box.name)
    reachable(laptop.namespace, box.address())
    with ssh(laptop, box, "echo", "shut", "out") as first:
        answer(world, first.link(), "refuse")
        assert first.ends() != 0
        assert "turned away" in first.shown
    with ssh(laptop, box, "echo", "let", "in") as second:
        answer(world, second.link(), "allow")
        assert second.ends() == 0, second.shown
        assert "let in" in second.shown
    with ssh(laptop, box, "echo", "once", "more") as third:
        assert third.ends() == 0, third.shown
        assert "once more" in third.shown
        assert LINK.search(third.shown) is None
